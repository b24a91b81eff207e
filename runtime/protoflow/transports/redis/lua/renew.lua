-- Renews leases, ends leases of other members that were not renewed, and removes left-over data.
-- ARGV: mode, lease, position among lanes, then id and deliveries of each entry. Returns whether a
-- group was removed, the next position among lanes, and for each entry 1 if it is not held any more.
local order, lease, lost, held = ARGV[3], tonumber(ARGV[4]), {}, {}
for i = 6, #ARGV, 2 do
  local mine = holds(ARGV[i], ARGV[i + 1])
  lost[#lost + 1] = mine and 0 or 1
  if mine then held[#held + 1] = ARGV[i] end
end
portions(held, function(part)
  local claim = {'XCLAIM', S, group, me, 0}
  for _, id in ipairs(part) do claim[#claim + 1] = id end
  claim[#claim + 1] = 'JUSTID'
  call(unpack(claim))
end)
-- End expired leases of every member.
give_back(call('XPENDING', S, group, 'IDLE', lease, '-', '+', MOST), 0)
if order ~= mode or (ordered and call('ZCARD', W) ~= call('ZCARD', P)) then rebuild(order) end
-- Killed members leave their names behind; groups of broadcasts leave all their keys.
local busy = {}
for _, info in ipairs(call('XINFO', 'CONSUMERS', S, group)) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  busy[fields.name] = fields.pending > 0
  if fields.pending == 0 and fields.idle > 20 * lease then
    call('XGROUP', 'DELCONSUMER', S, group, fields.name)
    call('HDEL', N, fields.name)
  end
end
-- Entries that an operator deleted are never settled, so free their lanes.
local scan = call('HSCAN', H, ARGV[5], 'COUNT', MOST)
for i = 1, #scan[2], 2 do
  for who in string.gmatch(scan[2][i + 1], '([^\n]+) %d+') do
    if not busy[who] then
      hold(scan[2][i], who, -math.huge)
      refresh(scan[2][i])
    end
  end
end
local B, ended = S..':broadcasts', 0
if call('ZSCORE', B, group) then call('ZADD', B, now + 20 * lease, group) end
for _, name in ipairs(call('ZRANGEBYSCORE', B, '-inf', now)) do
  destroy(name)
  call('ZREM', B, name)
  ended = 1
end
return {ended, scan[1], lost}
