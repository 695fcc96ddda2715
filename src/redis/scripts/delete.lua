-- Removes an item.
-- ARGV: nonce, cookie (-1: missing, -2: unusable), sent again, deadline in server ms (0: none)
-- Returns {200}, {400}, {404}, {408} or {423, counter, lock age in ms}.
local key, cookie = KEYS[1], tonumber(ARGV[2])
local again = ARGV[3] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[4] ~= '0' and now > tonumber(ARGV[4]) then return {408} end
local item = redis.call('HMGET', key, 't', 'c', 'l')
if not item[1] then
  if not again then return {404} end
  -- WAIT speaks of the writes of its own connection, and this one may be new.
  redis.call('HSET', key, 't', 1)
  redis.call('DEL', key)
  return {200}
end
local ms, counter, answer = item[1] * 60000, tonumber(item[2]), nil
if cookie == -2 then
  answer = {400}
elseif item[3] and cookie ~= counter then
  answer = {423, counter, math.max(0, now - item[3])}
elseif not item[3] and again and counter > cookie then
  -- Somebody has had the lock since: this is another item, or one that is still in use.
  answer = {200}
end
if not answer then
  redis.call('DEL', key)
  return {200}
end
if answer[1] == 200 or redis.call('PTTL', key) < ms - 1000 then redis.call('PEXPIRE', key, ms) end
return answer
