-- Gives a lock back.
-- ARGV: nonce, cookie (-1: missing, -2: unusable, -3: the lock that this nonce has taken, if it has)
-- Returns {200, first}, {400}, {404} or {423, counter, lock age in ms}.
local key, nonce, cookie = KEYS[1], ARGV[1], tonumber(ARGV[2])
local item = redis.call('HMGET', key, 't', 'c', 'l', 'u', 'n', 'w')
if not item[1] then return {404} end
if cookie == -3 then
  if item[3] and item[5] == nonce then redis.call('HDEL', key, 'l', 'n') end
  -- Nobody was told of the flag that it took.
  if item[4] == nonce then redis.call('HSET', key, 'u', '1') end
  return {200, 0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local ms, counter, first = item[1] * 60000, tonumber(item[2]), 0
if redis.call('PTTL', key) < ms - 1000 then redis.call('PEXPIRE', key, ms) end
if item[4] == nonce then
  first = 1
elseif item[4] == '1' then
  first = 1
  redis.call('HSET', key, 'u', nonce)
end
if cookie < 0 then return {400} end
if item[6] == nonce then
  -- Sent again: it has given the lock back, whoever has it since. As below, that has to be a write.
  redis.call('PEXPIRE', key, ms)
  return {200, first}
end
if item[3] and cookie ~= counter then
  return {423, counter, math.max(0, now - item[3])}
end
if item[3] then
  redis.call('HDEL', key, 'l', 'n')
  redis.call('HSET', key, 'w', nonce)
else
  -- It may be sent again. WAIT speaks of the writes of its own connection, and this one may be new.
  redis.call('PEXPIRE', key, ms)
end
return {200, first}
