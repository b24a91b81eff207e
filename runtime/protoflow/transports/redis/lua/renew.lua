-- Renews leases, ends those of others that nobody renewed, and removes what is left behind.
-- Returns whether a group was removed, and for each entry 1 if it is not held any more.
local lease, most, lost, held = tonumber(ARGV[4]), tonumber(ARGV[5]), {}, {}
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
-- Leases that ended, of whatever member.
give_back(call('XPENDING', S, group, 'IDLE', lease, '-', '+', most), 0)
if call('GET', S..':mode:'..group) ~= mode
  or (ordered and call('ZCARD', W) ~= call('ZCARD', P)) then rebuild() end
-- Members that are gone leave their names behind, and groups of broadcasts all they had.
local busy = {}
for _, info in ipairs(call('XINFO', 'CONSUMERS', S, group)) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  busy[fields.name] = fields.pending > 0
  if fields.pending == 0 and fields.idle > 20 * lease then
    call('XGROUP', 'DELCONSUMER', S, group, fields.name)
  end
end
-- Lanes of entries that were deleted by hand: nobody settles those.
local lanes = ordered and call('HGETALL', H) or {}
for i = 1, #lanes, 2 do
  if not busy[string.match(lanes[i + 1], '^(.*) %d+$')] then
    call('HDEL', H, lanes[i])
    refresh(lanes[i])
  end
end
local B, ended = S..':broadcasts', 0
if call('ZSCORE', B, group) then call('ZADD', B, now + 20 * lease, group) end
for _, name in ipairs(call('ZRANGEBYSCORE', B, '-inf', now)) do
  call('XGROUP', 'DESTROY', S, name)
  call('ZREM', B, name)
  for _, part in ipairs({'waiting', 'state', 'marks', 'parked', 'lanes', 'holders', 'mode'}) do
    call('DEL', S..':'..part..':'..name)
  end
  ended = 1
end
return {ended, lost}
