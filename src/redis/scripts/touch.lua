-- Keeps an item alive.
-- ARGV: nonce
-- Returns {200} or {404}.
local minutes = redis.call('HGET', KEYS[1], 't')
if not minutes then return {404} end
local ms = minutes * 60000
if redis.call('PTTL', KEYS[1]) < ms - 1000 then redis.call('PEXPIRE', KEYS[1], ms) end
return {200}
