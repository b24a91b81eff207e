-- Makes a group where it is missing.
local start, lease = ARGV[4], tonumber(ARGV[5])
local made = redis.pcall('XGROUP', 'CREATE', S, group, start, 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
if lease > 0 then call('ZADD', S..':broadcasts', now + 20 * lease, group) end
if mode ~= '' and call('GET', S..':mode:'..group) ~= mode then rebuild() end
return made.err and 0 or 1
