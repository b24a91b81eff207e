-- A member ends: what it holds is free. Returns whether its group went with it.
give_back(call('XPENDING', S, group, '-', '+', 1000000, me), 0)
call('XGROUP', 'DELCONSUMER', S, group, me)
if call('ZREM', S..':broadcasts', group) == 1 then
  call('XGROUP', 'DESTROY', S, group)
  call('DEL', W, T, M, P, L, H, S..':mode:'..group)
  return 1
end
return 0
