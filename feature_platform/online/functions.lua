-- The only code that writes rows and positions. Loaded under a name that carries the hash of this text, so that
-- processes of two versions of the platform never run each other's code. Rules: docs/reference/online-format.md.
--
-- Positions are compared as two 32-bit words: Lua compares strings by the server's locale, and a double holds 53 bits.

local NO_EXPIRY = -1
local ABSENT = -2
-- a tombstone of a view without ttl outlives this much delay of a write it must refuse
local TOMBSTONE_LIFE_MS = 30 * 24 * 3600 * 1000
local PREFIX_BYTES = 16

local function later(a, b)
    local a_high, a_low = struct.unpack('>I4I4', a)
    local b_high, b_low = struct.unpack('>I4I4', b)
    if a_high ~= b_high then return a_high > b_high end
    return a_low > b_low
end

local function now_ms()
    local now = server.call('TIME')
    return tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
end

-- KEYS: one per row. ARGV: per row its value and the instant (ms) until which it must be kept, 0 = for ever.
-- Returns {rows written, rows refused because a later position is there, rows left out because they are past keeping}.
local function write(keys, args)
    local now = now_ms()
    local written, refused, dead = 0, 0, 0
    for i, key in ipairs(keys) do
        local value, kept = args[2 * i - 1], args[2 * i]
        local held = server.call('GETRANGE', key, 0, 7)
        if #held == 8 and later(held, value) then
            refused = refused + 1
        elseif #held == 8 and #value > PREFIX_BYTES and kept ~= '0' then
            -- what the branch below comes to for such a row, in cheaper words: no expiry is the greatest one to GT, too
            server.call('PEXPIREAT', key, kept, 'GT')
            server.call('SET', key, value, 'KEEPTTL')
            written = written + 1
        else
            local keep_until = tonumber(kept)
            local expiry = #held == 8 and server.call('PEXPIRETIME', key) or ABSENT
            local is_tombstone = #value == PREFIX_BYTES
            if is_tombstone and (keep_until == 0 or expiry == NO_EXPIRY) then
                keep_until = math.max(keep_until, now + TOMBSTONE_LIFE_MS)
            elseif expiry == NO_EXPIRY then
                keep_until = 0
            end
            if keep_until == 0 then
                server.call('SET', key, value)
                written = written + 1
            else
                keep_until = math.max(keep_until, expiry)
                if keep_until > now then
                    server.call('SET', key, value, 'PXAT', string.format('%.0f', keep_until))
                    written = written + 1
                else
                    dead = dead + 1
                end
            end
        end
    end
    return {written, refused, dead}
end

local function at_least(a, b)
    for first = 1, PREFIX_BYTES, 4 do
        local x, y = struct.unpack('>I4', a, first), struct.unpack('>I4', b, first)
        if x ~= y then return x > y end
    end
    return true
end

-- Pushed rows: KEYS and ARGV as of write. A row replaces another iff (event time, push number), its first 16 bytes, is
-- not smaller. Returns {rows written, rows refused, rows left out because they are past keeping}.
local function push(keys, args)
    local now = now_ms()
    local written, refused, dead = 0, 0, 0
    for i, key in ipairs(keys) do
        local value, keep_until = args[2 * i - 1], tonumber(args[2 * i])
        local held = server.call('GETRANGE', key, 0, PREFIX_BYTES - 1)
        if #held == PREFIX_BYTES and not at_least(value, held) then
            refused = refused + 1
        elseif keep_until == 0 then
            server.call('SET', key, value)
            written = written + 1
        elseif keep_until > now then
            server.call('SET', key, value, 'PXAT', string.format('%.0f', keep_until))
            written = written + 1
        else
            dead = dead + 1
        end
    end
    return {written, refused, dead}
end

local function server_run_id()
    return string.match(server.call('INFO', 'server'), 'run_id:(%x+)')
end

-- KEYS: the position key. ARGV: a fresh nonce, used if there is no position yet.
-- Returns {nonce, position as text, the server's run id, what note() left}.
local function begin(keys, args)
    server.call('HSETNX', keys[1], 'nonce', args[1])
    server.call('HSETNX', keys[1], 'position', '0')
    local held = server.call('HMGET', keys[1], 'nonce', 'position', 'progress')
    return {held[1], held[2], server_run_id(), held[3] or ''}
end

-- KEYS: the position key. ARGV: nonce and run id that begin() returned, the position reached.
-- Returns 1, or 0 if the store is no longer the one that begin() met.
local function advance(keys, args)
    local held = server.call('HMGET', keys[1], 'nonce', 'position')
    if held[1] ~= args[1] or server_run_id() ~= args[2] then return 0 end
    if tonumber(args[3]) > tonumber(held[2]) then
        server.call('HSET', keys[1], 'position', args[3], 'run_id', args[2])
    end
    server.call('HDEL', keys[1], 'progress')
    return 1
end

-- KEYS: the position key. ARGV: nonce and run id that begin() returned, how far an unfinished plan is.
-- Returns 1, or 0 if the store is no longer the one that begin() met.
local function note(keys, args)
    if server.call('HGET', keys[1], 'nonce') ~= args[1] or server_run_id() ~= args[2] then return 0 end
    server.call('HSET', keys[1], 'progress', args[3])
    return 1
end

-- In a cluster. ARGV: how many keys, the keys, then what the function takes besides. The keys lie in many slots of one
-- node, so none of them is declared; the first that is another node's ends the call, and what came before it stays.
-- Whoever must be redirected declares one key as well.
local function undeclared(callback)
    return function(_, args)
        local count = tonumber(args[1])
        local keys, rest = {}, {}
        for i = 1, count do keys[i] = args[1 + i] end
        for i = count + 2, #args do rest[#rest + 1] = args[i] end
        return callback(keys, rest)
    end
end

-- A slot's entry for a view: nonce, position, and the shard that held the slot when it was made.
local function slot_entry(key, view)
    local held = server.call('HGET', key, view)
    if not held then return nil end
    return string.match(held, '^(%x+) (%d+) (%x+)$')
end

local function shard()
    return string.sub(server.call('CLUSTER', 'MYSHARDID'), 1, 16)
end

-- KEYS: of slots. ARGV: the view, a fresh nonce for slots without an entry and for those that came from another shard.
-- Returns {the server's run id, nonce and position of each slot}.
local function begin_slots(keys, args)
    local mine, answer = shard(), {server_run_id()}
    for _, key in ipairs(keys) do
        local nonce, position, holder = slot_entry(key, args[1])
        if holder ~= mine then
            nonce, position = args[2], '0'
            server.call('HSET', key, args[1], nonce .. ' 0 ' .. mine)
        end
        answer[#answer + 1] = nonce
        answer[#answer + 1] = position
    end
    return answer
end

-- KEYS: of slots. ARGV: the view, the position reached, the run id that begin_slots() returned, and the nonces.
-- Returns how many slots are no longer what begin_slots() met; they stay where they are.
local function advance_slots(keys, args)
    local mine, is_same, refused = shard(), server_run_id() == args[3], 0
    for i, key in ipairs(keys) do
        -- read first: a key that lies elsewhere is to be asked for there, not refused here
        local nonce, position, holder = slot_entry(key, args[1])
        if not is_same or nonce ~= args[3 + i] or holder ~= mine then
            refused = refused + 1
        elseif tonumber(args[2]) > tonumber(position) then
            server.call('HSET', key, args[1], nonce .. ' ' .. args[2] .. ' ' .. mine)
        end
    end
    return refused
end

local function register_undeclared(name, callback)
    server.register_function{
        function_name = name, callback = undeclared(callback), flags = {'allow-cross-slot-keys'}
    }
end

register_undeclared('fp_scatter_write_HASH', write)
register_undeclared('fp_scatter_push_HASH', push)
register_undeclared('fp_begin_slots_HASH', begin_slots)
register_undeclared('fp_advance_slots_HASH', advance_slots)
server.register_function('fp_write_HASH', write)
server.register_function('fp_push_HASH', push)
server.register_function('fp_begin_HASH', begin)
server.register_function('fp_advance_HASH', advance)
server.register_function('fp_note_HASH', note)
