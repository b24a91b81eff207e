-- What the other scripts begin with. Each script is one atomic step on one shard of one topic.
--
-- KEYS[1] is the stream of the shard; every other key begins with its name, so all of them lie in
-- one slot of a cluster. Of each group:
--
--   <stream>:waiting:<group>  sorted set: entries that nobody holds -> when they may be claimed
--   <stream>:state:<group>    hash: entry -> failed runs, time of the first, deliveries
--   <stream>:marks:<group>    hash: entry -> start marks
--   <stream>:mode:<group>     how its order is kept: none, key, all
--   <stream>:parked:<group>   ordered groups: the waiting entries by lane, then by id
--   <stream>:lanes:<group>    ordered groups: lanes with waiting entries -> when one is due
--   <stream>:holders:<group>  ordered groups: lane -> who holds entries of it, and how many
--
-- What a member holds is in the group's pending entries, and nowhere else; its lease is their idle
-- time. A claim is told from every other by the consumer and the number of deliveries.
--
-- ARGV begins with the group, the consumer and the mode.
local call, S, group, me, mode = redis.call, KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local W, T, M = S..':waiting:'..group, S..':state:'..group, S..':marks:'..group
local P, L, H = S..':parked:'..group, S..':lanes:'..group, S..':holders:'..group
local ordered = mode ~= 'none'
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function lane_of(id, key)
  if not ordered then return nil end
  if mode == 'all' then return string.rep('0', 40) end
  if not key or key == '' then return redis.sha1hex('id '..id) end
  return redis.sha1hex('key '..key)
end
local function head_of(fields)
  local key, due, to
  for i = 1, #fields, 2 do
    local name = fields[i]
    if name == '_key' then key = fields[i + 1]
    elseif name == '_due' then due = tonumber(fields[i + 1])
    elseif name == '_to' then to = fields[i + 1] end
  end
  return key, due or 0, to
end
local function sortable(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms)..ms..string.rep('0', 20 - #seq)..seq
end
local function parked(lane, count)
  return call('ZRANGEBYLEX', P, '['..lane, '['..lane..'~', 'LIMIT', 0, count)
end
local function id_of(member) return string.sub(member, 81) end
local function park(id, lane, due)
  call('ZADD', W, due, id)
  if lane then call('ZADD', P, 0, lane..sortable(id)..id) end
end
local function holder(lane)
  local held = call('HGET', H, lane)
  if not held then return nil, 0 end
  local who, count = string.match(held, '^(.*) (%d+)$')
  return who, tonumber(count)
end
local function hold(lane, who, change)
  local by, count = holder(lane)
  if by and by ~= who then return end
  count = count + change
  if count > 0 then call('HSET', H, lane, who..' '..count) else call('HDEL', H, lane) end
end
-- Whether the only lane of the shard has entries that wait, or another member holds it: then what
-- is new waits, too, and may stay unread.
local function closed()
  if mode ~= 'all' then return false end
  local lane = lane_of()
  local by = holder(lane)
  return (by and by ~= me) or call('ZSCORE', L, lane)
end
local function refresh(lane)
  local first = parked(lane, 1)[1]
  if not first then call('ZREM', L, lane)
  elseif holder(lane) then call('ZADD', L, '+inf', lane)
  else call('ZADD', L, call('ZSCORE', W, id_of(first)) or 0, lane) end
end
local function state_of(id)
  local kept = call('HGET', T, id)
  if not kept then return 0, '0', 0 end
  local failures, first, deliveries = string.match(kept, '^(%d+) (%S+) (%d+)$')
  return tonumber(failures), first, tonumber(deliveries)
end
local function keep(id, failures, first, deliveries)
  if failures + deliveries == 0 then call('HDEL', T, id)
  else call('HSET', T, id, failures..' '..first..' '..deliveries) end
end
local function forget(ids)
  call('HDEL', T, unpack(ids))
  call('HDEL', M, unpack(ids))
end
local function holds(id, count)
  local found = call('XPENDING', S, group, id, id, 1, me)[1]
  return found ~= nil and found[4] == tonumber(count)
end
local function portions(ids, handle)
  for i = 1, #ids, 1000 do
    local part = {}
    for k = i, math.min(i + 999, #ids) do part[#part + 1] = ids[k] end
    handle(part)
  end
end
-- What to do with entries that this group is done with: no other may have them waiting, pending or
-- ahead of it.
local function remove(ids)
  if #ids == 0 or call('HGET', S..':topic', 'kept') then return end
  local others = {}
  for _, info in ipairs(call('XINFO', 'GROUPS', S)) do
    local fields = {}
    for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
    if fields.name ~= group then others[#others + 1] = {fields.name, sortable(fields['last-delivered-id'])} end
  end
  local free = {}
  for _, id in ipairs(ids) do
    local wanted = false
    for _, other in ipairs(others) do
      wanted = other[2] < sortable(id) or call('ZSCORE', S..':waiting:'..other[1], id)
        or call('XPENDING', S, other[1], id, id, 1)[1]
      if wanted then
        local entry = call('XRANGE', S, id, id)[1]
        local _, _, to = head_of(entry and entry[2] or {})
        wanted = not to or to == other[1]
      end
      if wanted then break end
    end
    if not wanted then free[#free + 1] = id end
  end
  portions(free, function(part) call('XDEL', S, unpack(part)) end)
end
local function rebuild()
  call('DEL', P, L, H)
  call('SET', S..':mode:'..group, mode)
  if not ordered then return end
  local lanes = {}
  local function lane_in_stream(id)
    local entry = call('XRANGE', S, id, id)[1]
    return entry and lane_of(id, (head_of(entry[2])))
  end
  for _, each in ipairs(call('XPENDING', S, group, '-', '+', 1000000)) do
    local lane = lane_in_stream(each[1])
    if lane then hold(lane, each[2], 1) end
  end
  for _, id in ipairs(call('ZRANGE', W, 0, -1)) do
    local lane = lane_in_stream(id)
    if lane then
      call('ZADD', P, 0, lane..sortable(id)..id)
      lanes[lane] = true
    else call('ZREM', W, id) end
  end
  for lane in pairs(lanes) do refresh(lane) end
end
-- Gives entries of a consumer back, as if their deliveries had been `less` fewer.
local function give_back(entries, less)
  local lanes, ids = {}, {}
  for _, each in ipairs(entries) do ids[#ids + 1] = each[1] end
  -- First: when memory is short, a script may go on after a write that needs none.
  portions(ids, function(part) call('XACK', S, group, unpack(part)) end)
  for _, each in ipairs(entries) do
    local id, who, count = each[1], each[2], each[4]
    local entry = call('XRANGE', S, id, id)[1]
    if entry then
      local failures, first = state_of(id)
      local lane = lane_of(id, (head_of(entry[2])))
      keep(id, failures, first, count - less)
      park(id, lane, 0)
      if lane then
        hold(lane, who, -1)
        lanes[lane] = true
      end
    end
  end
  for lane in pairs(lanes) do refresh(lane) end
end
