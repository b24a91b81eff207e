-- Claims due entries, then new ones, up to a number of entries and of bytes.
-- Returns the newest entry of the stream, ms until an entry is due (-1: none waits), deliveries.
if overtaken(ARGV[3]) then return {err = 'OVERTAKEN by a later call'} end
local room, bytes, taken = tonumber(ARGV[4]), tonumber(ARGV[5]), {}
local function hand_out(id, count, failures, first, fields)
  for i = 1, #fields do bytes = bytes - #fields[i] end
  local marks = count > 1 and call('HGET', M, id) or 0
  taken[#taken + 1] = {id, count, failures, first, tonumber(marks) or 0, fields}
  room = room - 1
end
local function claim(id)
  local failures, first, deliveries = state_of(id)
  call('ZREM', W, id)
  local entry = call('XCLAIM', S, group, me, 0, id, 'RETRYCOUNT', deliveries + 1, 'FORCE')[1]
  if not entry then
    forget({id})
    return 0
  end
  hand_out(id, deliveries + 1, failures, first, entry[2])
  return 1
end
if ordered then
  for _, lane in ipairs(call('ZRANGEBYSCORE', L, '-inf', now, 'LIMIT', 0, room)) do
    if room < 1 or bytes < 1 then break end
    local claimed = 0
    for _, member in ipairs(parked(lane, room)) do
      local id = id_of(member)
      if bytes < 1 or tonumber(call('ZSCORE', W, id) or 0) > now then break end
      call('ZREM', P, member)
      claimed = claimed + claim(id)
    end
    hold(lane, me, claimed)
    refresh(lane)
  end
else
  for _, id in ipairs(call('ZRANGEBYSCORE', W, '-inf', now, 'LIMIT', 0, room)) do
    if bytes < 1 then break end
    claim(id)
  end
end
local function take(id, fields)
  local key, due, to = head_of(fields)
  if to and to ~= group then
    call('XACK', S, group, id)
    return remove({id})  -- this group may not exist
  end
  local waiting = lane_of(id, key)
  local lane = (mode == 'all' or (key and key ~= '')) and waiting  -- entries without a key have no order
  local by = lane and holder(lane)
  if due > now or (by and by ~= me) or (lane and call('ZSCORE', L, lane)) then
    call('XACK', S, group, id)
    park(id, waiting, due)
    if waiting then refresh(waiting) end
    return
  end
  if lane then hold(lane, me, 1) end
  hand_out(id, 1, 0, '0', fields)
end
-- Reads new entries; some of them must wait for others, so the number of reads is limited.
local left = MOST
while room > 0 and bytes > 0 and left > 0 and not closed() do
  local asked = math.min(room, left, 32)
  left = left - asked
  local reply = call('XREADGROUP', 'GROUP', group, me, 'COUNT', asked, 'STREAMS', S, '>')
  local entries = reply and reply[1][2] or {}
  for _, entry in ipairs(entries) do take(entry[1], entry[2]) end
  if #entries < asked then left = -1 end
end
if #taken > 0 then return {'', -1, taken} end
local next = call('ZRANGE', ordered and L or W, 0, 0, 'WITHSCORES')[2]
local wait = left == 0 and now or next and tonumber(next) or math.huge
local last = ''
local info = call('XINFO', 'STREAM', S)
for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
return {last, wait == math.huge and -1 or math.max(0, wait - now), taken}
