-- Gives back what this consumer holds and does not know: the answer of a fetch was lost.
local known, unknown = {}, {}
for i = 4, #ARGV do known[ARGV[i]] = true end
for _, each in ipairs(call('XPENDING', S, group, '-', '+', 1000000, me)) do
  if not known[each[1]] then unknown[#unknown + 1] = each end
end
give_back(unknown, 1)
return #unknown
