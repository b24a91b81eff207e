-- Removes entries that no group needs, after a group was deleted. Returns the next position.
local entries = call('XRANGE', S, ARGV[3], '+', 'COUNT', MOST)
if #entries == 0 or #call('XINFO', 'GROUPS', S) == 0 then return '' end
local ids = {}
for _, entry in ipairs(entries) do ids[#ids + 1] = entry[1] end
remove(ids)
return '('..ids[#ids]
