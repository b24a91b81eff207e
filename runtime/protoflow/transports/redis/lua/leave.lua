-- A member ends: what it holds is free. Returns whether its group went with it; -1: call again.
local entries = call('XPENDING', S, group, '-', '+', MOST, me)
give_back(entries, 0)
if #entries == MOST then return -1 end
call('XGROUP', 'DELCONSUMER', S, group, me)
call('HDEL', N, me)
if call('ZREM', S..':broadcasts', group) == 0 then return 0 end
destroy(group)
return 1
