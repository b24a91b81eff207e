-- Sets the idle time of entries that this consumer holds. ARGV: group, consumer, idle time in ms,
-- entries. Returns for each entry 1, or 0 if this consumer does not hold it.
local results = {}
for i = 4, #ARGV do
  local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])[1]
  if held then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'JUSTID')
  end
  results[#results + 1] = held and 1 or 0
end
return results
