-- Removes a member and frees its entries. Returns whether its group was removed; -1: call again.
local entries = call('XPENDING', S, group, '-', '+', MOST, me)
give_back(entries, 0)
if #entries == MOST then return -1 end
call('XGROUP', 'DELCONSUMER', S, group, me)
call('HDEL', N, me)
if call('ZREM', S..':broadcasts', group) == 0 then return 0 end
destroy(group)
return 1
