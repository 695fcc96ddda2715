-- A shared read, or one that takes the lock.
-- ARGV: nonce, step (0: shared), deadline in server ms (0: none), largest body to return
-- Returns {200, minutes, counter, first[, body]}, {404}, {423, counter, lock age in ms} or {408}.
local key, nonce, step = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] ~= '0' and now > tonumber(ARGV[3]) then return {408} end
local item = redis.call('HMGET', key, 't', 'c', 'l', 'n', 'u')
if not item[1] then return {404} end
local ms, counter, first = item[1] * 60000, tonumber(item[2]), 0
if redis.call('PTTL', key) < ms - 1000 then redis.call('PEXPIRE', key, ms) end
if item[5] == nonce then
  first = 1
elseif item[5] == '1' then
  first = 1
  redis.call('HSET', key, 'u', nonce)
end
if item[3] and not (step > 0 and item[4] == nonce) then
  return {423, counter, math.max(0, now - item[3])}
end
if step > 0 and not item[3] then
  counter = counter + step
  if counter > 15728639 then counter = 1 + step end
  redis.call('HSET', key, 'c', counter, 'l', now, 'n', nonce)
elseif step > 0 then
  -- Sent again. WAIT speaks of the writes of its own connection, and this one may be new.
  redis.call('PEXPIRE', key, ms)
end
if redis.call('HSTRLEN', key, 'b') > tonumber(ARGV[4]) then
  return {200, tonumber(item[1]), counter, first}
end
return {200, tonumber(item[1]), counter, first, redis.call('HGET', key, 'b')}
