-- Stores an item and unlocks it.
-- ARGV: nonce, minutes, cookie (-1: missing, -2: unusable), insert only, sent again, live only,
--       deadline in server ms (0: none), body
-- Returns {200}, {400}, {408}, {423, counter, lock age in ms} or {507}: no room for a new item.
local key, nonce, minutes, cookie = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local again = ARGV[5] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[7] ~= '0' and now > tonumber(ARGV[7]) then return {408} end
local item = redis.call('HMGET', key, 't', 'c', 'l', 'u', 'w')
if not item[1] then
  if ARGV[6] == '1' then return {507} end
  redis.call('HSET', key, 'b', ARGV[8], 't', minutes, 'c', 1, 'w', nonce)
  if ARGV[4] == '1' then redis.call('HSET', key, 'u', '1') end
  redis.call('PEXPIRE', key, minutes * 60000)
  return {200}
end
local counter, answer = tonumber(item[2]), nil
if ARGV[4] == '1' or item[5] == nonce then
  -- Nothing to insert; or sent again: it was stored, whoever has the lock since.
  answer = {200}
elseif cookie == -2 then
  answer = {400}
elseif item[3] and cookie ~= counter then
  answer = {423, counter, math.max(0, now - item[3])}
elseif not item[3] and again and counter > math.max(cookie, 1) then
  -- Somebody has had the lock since: what is sent again was stored before that.
  answer = {200}
end
if answer then
  local ms = item[1] * 60000
  -- Of what is sent again WAIT has to speak: of the writes of its own connection, which may be new.
  if answer[1] == 200 or redis.call('PTTL', key) < ms - 1000 then
    redis.call('PEXPIRE', key, ms)
  end
  return answer
end
local changes = tonumber(item[1]) ~= minutes
-- A failover may have lost the acquire whose cookie this is.
if (changes or again) and cookie > counter and cookie <= 15728639 then counter = cookie end
redis.call('HSET', key, 'b', ARGV[8], 't', minutes, 'c', counter, 'w', nonce)
if item[3] then redis.call('HDEL', key, 'l', 'n') end
if item[4] and (item[4] ~= '1' or changes) then redis.call('HDEL', key, 'u') end
redis.call('PEXPIRE', key, minutes * 60000)
return {200}
