-- Reads, adds or clears the start marks of a held entry. Returns -1 if it is not held.
local action, id = ARGV[3], ARGV[4]
if not holds(id, ARGV[5]) then return -1 end
if action == 'add' then return call('HINCRBY', M, id, 1) end
if action == 'clear' then
  call('HDEL', M, id)
  return 0
end
return tonumber(call('HGET', M, id) or 0)
