-- Bounds a topic that no group consumes.
local groups = redis.pcall('XINFO', 'GROUPS', S)
if groups.err or #groups > 0 or call('HGET', S..':topic', 'kept') then return 0 end
return call('XTRIM', S, 'MAXLEN', '~', ARGV[4])
