-- Settles held entries: id, deliveries, and A<key> or N<delay> <failures> <first> <less> <key>.
-- A key begins with k; members without order leave it out. Returns whether an entry became free, and
-- for each entry 1, or 0 if it is not held.
local results, done, gone, lanes, waits = {}, {}, {}, {}, 0
for i = 3, #ARGV, 3 do
  local mine = holds(ARGV[i], ARGV[i + 1])
  results[#results + 1] = mine and 1 or 0
  if mine then gone[#gone + 1] = ARGV[i] end
end
-- First, because it needs no memory: after it, Redis lets the script finish if memory is short.
portions(gone, function(part) call('XACK', S, group, unpack(part)) end)
for i = 3, #ARGV, 3 do
  local id, what = ARGV[i], ARGV[i + 2]
  if results[i / 3] == 1 then
    local delay, failures, first, less, key = string.match(what, '^N(%d+) (%d+) (%S+) (%d+) (.*)$')
    if delay then key = string.match(key, '^k(.*)$') else key = string.match(what, '^Ak(.*)$') end
    local lane
    if key then lane = lane_of(id, key) elseif ordered then lane = lane_in_stream(id) end
    if delay then
      keep(id, tonumber(failures), first, tonumber(ARGV[i + 1]) - tonumber(less))
      park(id, lane, delay == '0' and 0 or now + tonumber(delay))
      waits = 1
    else
      done[#done + 1] = id
    end
    if lane then
      hold(lane, me, -1)
      lanes[lane] = true
    end
  end
end
if call('EXISTS', T, M) > 0 then portions(done, forget) end
remove(done)
for lane in pairs(lanes) do
  refresh(lane)
  waits = 1
end
return {waits, results}
