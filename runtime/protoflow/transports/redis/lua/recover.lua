-- Gives back entries that this consumer holds without knowing it, because the answer of a fetch was
-- lost. ARGV: turn, start position, and the known entries. Returns the next position.
if overtaken(ARGV[3]) then return {err = 'OVERTAKEN by a later call'} end
call('HSET', N, me, ARGV[3])
local known, unknown, place = {}, {}, ''
for i = 5, #ARGV do known[ARGV[i]] = true end
local entries = call('XPENDING', S, group, ARGV[4], '+', MOST, me)
for _, each in ipairs(entries) do
  if not known[each[1]] then unknown[#unknown + 1] = each end
  place = '('..each[1]
end
give_back(unknown, 1)
return #entries == MOST and place or ''
