-- Returns a lower bound of the number of entries that this group could claim now.
local count = call('ZCOUNT', ordered and L or W, '-inf', now)
if closed() then return count end
for _, info in ipairs(call('XINFO', 'GROUPS', S)) do
  local fields = {}
  for i = 1, #info, 2 do fields[info[i]] = info[i + 1] end
  if fields.name == group then
    local ahead = call('XRANGE', S, '('..fields['last-delivered-id'], '+', 'COUNT', 1)
    return count + (fields.lag or #ahead)
  end
end
return count
