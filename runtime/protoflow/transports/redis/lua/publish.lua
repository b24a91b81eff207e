-- Adds messages. ARGV: `require` or nothing, then for each message the number of its fields, its
-- delay in ms, and its fields. Returns an error for each message.
local S, subscribed, results, i = KEYS[1], true, {}, 2
if ARGV[1] == 'require' then
  local groups = redis.pcall('XINFO', 'GROUPS', S)
  subscribed = not groups.err and #groups > 0 or redis.call('HGET', S..':topic', 'kept')
end
while i <= #ARGV do
  local count, delay = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local last = i + 1 + count
  if subscribed then
    local added
    if delay > 0 then
      local time = redis.call('TIME')
      local due = string.format('%.0f', time[1] * 1000 + math.ceil(time[2] / 1000) + delay)
      added = redis.pcall('XADD', S, '*', '_due', due, unpack(ARGV, i + 2, last))
    else
      added = redis.pcall('XADD', S, '*', unpack(ARGV, i + 2, last))
    end
    results[#results + 1] = added.err or ''
  else
    results[#results + 1] = 'NOGROUP'
  end
  i = last + 1
end
return results
