-- Limits the length of a topic without groups.
local S = KEYS[1]
local groups = redis.pcall('XINFO', 'GROUPS', S)
if groups.err or #groups > 0 or redis.call('HGET', S..':topic', 'kept') then return 0 end
return redis.call('XTRIM', S, 'MAXLEN', '~', ARGV[1])
