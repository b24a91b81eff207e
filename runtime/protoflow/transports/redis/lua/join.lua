-- Creates a group if it is missing. ARGV: mode (or nothing), start, lease of a broadcast.
local order, start, lease = ARGV[3], ARGV[4], tonumber(ARGV[5])
local made = redis.pcall('XGROUP', 'CREATE', S, group, start, 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP') then return made end
if lease > 0 then call('ZADD', S..':broadcasts', now + 20 * lease, group) end
if order ~= '' and call('GET', D) ~= order then rebuild(order) end
return made.err and 0 or 1
