-- Acknowledges entries of a stream of another program. ARGV: group, consumer, entries.
-- Returns for each entry 1, or 0 if this consumer does not hold it. XACK does not check that.
local results = {}
for i = 3, #ARGV do
  local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])[1]
  results[#results + 1] = held and redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) or 0
end
return results
