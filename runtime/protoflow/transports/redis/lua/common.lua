-- The beginning of every script. Each script is one atomic step on one shard of one topic.
--
-- KEYS[1] is the stream of the shard. Every other key begins with its name, so that all keys are in
-- one slot of a cluster. Each group has these keys:
--
--   <stream>:waiting:<group>  sorted set: entries without a holder -> time when they may be claimed
--   <stream>:state:<group>    hash: entry -> failed runs, time of the first failure, deliveries
--   <stream>:marks:<group>    hash: entry -> start marks
--   <stream>:turns:<group>    hash: member -> its number of lost calls; calls of earlier turns are refused
--   <stream>:mode:<group>     order of the group (none, key, all), and progress of building the next three
--   <stream>:parked:<group>   ordered groups: the waiting entries by lane, then by id
--   <stream>:lanes:<group>    ordered groups: lanes with waiting entries -> time when one is due
--   <stream>:holders:<group>  ordered groups: lane -> its holders and their numbers of entries, one
--                             a line (several, if the group was not ordered before)
--
-- The entries that a member holds are the group's pending entries; their idle time is compared with
-- the lease. The consumer and the number of deliveries identify a claim of an entry.
--
-- The first two values in ARGV are the group and the consumer.
local call, S, group, me = redis.call, KEYS[1], ARGV[1], ARGV[2]
local function key_of(part, name) return S..':'..part..':'..(name or group) end
local W, T, M, N = key_of('waiting'), key_of('state'), key_of('marks'), key_of('turns')
local D, P, L, H = key_of('mode'), key_of('parked'), key_of('lanes'), key_of('holders')
-- If there is a stage, the indexes of an ordered group are built up to a place.
local mode, stage, place = string.match(call('GET', D) or 'none', '^(%S+) ?(%S*) ?(%S*)$')
local ordered = mode ~= 'none'
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- The most entries that a script reads, because the server answers no other client meanwhile.
local MOST = 1000

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
    elseif name == '_due' then
      local digits = string.match(fields[i + 1], '^%d+$')  -- other clients may have written other values
      due = digits and #digits < 14 and tonumber(digits)
    elseif name == '_to' then to = fields[i + 1] end
  end
  return key, due or 0, to
end
local function lane_in_stream(id)
  local entry = call('XRANGE', S, id, id)[1]
  return entry and lane_of(id, (head_of(entry[2]))), entry
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
-- Returns the holder of a lane; '' if there are several.
local function holder(lane)
  local held = call('HGET', H, lane)
  return held and (string.match(held, '^([^\n]+) %d+$') or '')
end
local function hold(lane, who, change)
  local lines = {}
  for by, count in string.gmatch(call('HGET', H, lane) or '', '([^\n]+) (%d+)') do
    if by == who then change = change + count else lines[#lines + 1] = by..' '..count end
  end
  if change > 0 then lines[#lines + 1] = who..' '..change end
  if #lines > 0 then call('HSET', H, lane, table.concat(lines, '\n')) else call('HDEL', H, lane) end
end
-- Returns whether the shard's only lane has waiting entries or is held by another member. New entries
-- must wait then, too, so they need not be read.
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
-- Returns whether a later call of this member has already given back the claims of this call.
local function overtaken(turn) return tonumber(turn) < tonumber(call('HGET', N, me) or 0) end
local function portions(ids, handle)
  for i = 1, #ids, MOST do
    local part = {}
    for k = i, math.min(i + MOST - 1, #ids) do part[#part + 1] = ids[k] end
    handle(part)
  end
end
-- Deletes entries that this group has settled, unless they wait, are pending or are still unread in
-- another group.
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
      wanted = other[2] < sortable(id) or call('ZSCORE', key_of('waiting', other[1]), id)
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
-- Removes a group and all its keys.
local function destroy(name)
  call('XGROUP', 'DESTROY', S, name)
  for _, part in ipairs({'waiting', 'state', 'marks', 'turns', 'mode', 'parked', 'lanes', 'holders'}) do
    call('UNLINK', key_of(part, name))
  end
end
-- Gives entries back; `less` is subtracted from their numbers of deliveries.
local function give_back(entries, less)
  local lanes = {}
  for _, each in ipairs(entries) do
    local id, who, count = each[1], each[2], each[4]
    -- First, because it needs no memory: after it, Redis lets the script finish if memory is short.
    call('XACK', S, group, id)
    local lane, entry = lane_in_stream(id)
    if entry then
      local failures, first = state_of(id)
      keep(id, failures, first, count - less)
      park(id, lane, 0)
    end
    if lane then
      hold(lane, who, -1)
      lanes[lane] = true
    end
  end
  for lane in pairs(lanes) do refresh(lane) end
end
-- Continues to build the indexes of an ordered group: first of held, then of waiting entries.
local function go_on()
  if stage == 'held' then
    local entries = redis.pcall('XPENDING', S, group, place, '+', MOST)
    if entries.err then entries = {} end  -- the group was deleted
    for _, each in ipairs(entries) do
      local lane = lane_in_stream(each[1])
      if lane then hold(lane, each[2], 1) end
      place = '('..each[1]
    end
    if #entries < MOST then stage, place = 'waiting', 0 end
  elseif stage == 'waiting' then
    local ids, lanes = call('ZRANGE', W, place, place + MOST - 1), {}
    for _, id in ipairs(ids) do
      local lane = lane_in_stream(id)
      if lane then
        call('ZADD', P, 0, lane..sortable(id)..id)
        lanes[lane] = true
        place = place + 1
      else call('ZREM', W, id) end
    end
    for lane in pairs(lanes) do refresh(lane) end
    if #ids < MOST then stage, place = '', '' end
  end
  call('SET', D, stage == '' and mode or mode..' '..stage..' '..place)
end
-- Builds the indexes again. If two steps are not enough, the next calls continue.
local function rebuild(order)
  call('UNLINK', P, L, H)
  mode, ordered = order, order ~= 'none'
  stage, place = ordered and 'held' or '', '-'
  go_on()
  go_on()
end
if stage ~= '' then
  go_on()
  return {err = 'REBUILDING the order of the group'}
end
