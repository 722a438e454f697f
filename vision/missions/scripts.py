"""What Redis does to a mission in one step: the scripts of `log.py`.

The law: a script touches the keys of one slot of a cluster, mostly of one mission, and decides
by the epoch who may write. Each is short, since Redis does nothing else meanwhile. `APPEND` serves
several missions, one after the other: those of one slot on a cluster, any elsewhere.
"""

from __future__ import annotations

from typing import Final

# KEYS: log, head and nodes of each mission. ARGV for each: how many follow, epoch, first and last
# number, the events, the final status or "", when it ended, how long to keep it, whether a node
# ended in it, then pairs of node and outcome. A second copy of an append, whose answer was lost, is
# answered alike and changes nothing. What goes wrong with one mission is that one's answer.
APPEND: Final = """
local function append(log, head, nodes, at, final)
  local known = redis.call('HMGET', head, 'epoch', 'seq')
  if not known[1] then return 'gone' end
  if known[1] ~= ARGV[at] then return 'stale' end
  local seq, first, last = tonumber(known[2]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local events, status, ttl = ARGV[at + 3], ARGV[at + 4], ARGV[at + 6]
  if seq >= last and last >= first then return 'done' end
  if seq ~= first - 1 then return 'gap' end
  if last >= first then
    redis.call('XADD', log, last .. '-0', 'e', events)
    redis.call('HSET', head, 'seq', last)
  end
  for i = at + 8, final, 1000 do
    redis.call('HSET', nodes, unpack(ARGV, i, math.min(i + 999, final)))
  end
  if ARGV[at + 7] == '1' then redis.call('HSET', head, 'claims', 0) end
  if seq == 0 then
    redis.call('PEXPIRE', log, ttl)
    redis.call('PEXPIRE', nodes, ttl)
  end
  if status ~= '' then
    redis.call('HSET', head, 'status', status, 'finished', ARGV[at + 5])
    redis.call('PEXPIRE', log, ttl)
    redis.call('PEXPIRE', head, ttl)
    redis.call('PEXPIRE', nodes, ttl)
  end
  if last >= first then
    local live = string.gsub(log, ':log$', ':live')
    redis.call('SPUBLISH', live, first .. (status ~= '' and ' 1\\n' or ' 0\\n') .. events)
  end
  return 'done'
end

local answers, at = {}, 1
for i = 1, #KEYS, 3 do
  local final = at + tonumber(ARGV[at])
  local good, answer = pcall(append, KEYS[i], KEYS[i + 1], KEYS[i + 2], at + 1, final)
  if not good and type(answer) ~= 'table' then answer = {err = answer} end
  answers[#answers + 1] = answer
  at = final + 1
end
return answers
"""

# KEYS: head. ARGV: spec, now, how long to keep it.
CREATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'epoch', 0, 'seq', 0, 'claims', 0, 'status', 'queued',
           'spec', ARGV[1], 'created', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

# KEYS: head, nodes. ARGV: how long to keep it, the runner's queue entry or "", the entries that it
# replaces. A mission belongs to the entry that was taken first, and to one that replaces it:
# another one is a second copy, from a repeated write whose answer was lost, and must not be run.
ACQUIRE: Final = """
local head = redis.call('HMGET', KEYS[1], 'status', 'seq', 'spec', 'entry')
if head[1] ~= 'queued' and head[1] ~= 'running' then return {} end
local claims = 0
if ARGV[2] ~= '' then
  local entries = ' ' .. ARGV[2] .. ' ' .. ARGV[3] .. ' '
  if head[4] and not string.find(entries, ' ' .. head[4] .. ' ', 1, true) then return {} end
  redis.call('HSET', KEYS[1], 'entry', ARGV[2])
  claims = redis.call('HINCRBY', KEYS[1], 'claims', 1)
end
redis.call('HSET', KEYS[1], 'status', 'running')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {redis.call('HINCRBY', KEYS[1], 'epoch', 1), head[2], head[3], claims,
        redis.call('HGETALL', KEYS[2])}
"""

# KEYS: head. ARGV: epoch. A mission that its owner hands over is not one that loses its runners.
RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'claims', 0, 'status', 'queued')
return 1
"""

# KEYS: queue. ARGV: mission, how many may be queued. Entries of missions that run are there too.
OFFER: Final = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('XADD', KEYS[1], '*', 'mission', ARGV[1])
return 1
"""

# KEYS: queue. ARGV: as above, group, consumer. The answer has the entry that was taken; none when
# the group is gone: the next look into the queue makes it anew.
EXCHANGE: Final = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('XADD', KEYS[1], '*', 'mission', ARGV[1])
local taken = redis.pcall('XREADGROUP', 'GROUP', ARGV[3], ARGV[4], 'COUNT', 1,
                          'STREAMS', KEYS[1], '>')
if not taken or taken.err then return {} end
return taken[1][2]
"""

# KEYS: queue. ARGV: group, entry. Both or neither: an entry that is not pending would be queued.
DONE: Final = """
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])
"""

# KEYS: head, nodes. Both as they are at the same moment.
RECORD: Final = """
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2])}
"""

# KEYS: queue. ARGV: group, consumer, entries. Renews the claims that are still the consumer's and
# tells which: one that woke up late must not take back what another has taken over.
RENEW: Final = """
local kept = {}
for i = 3, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #pending == 1 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    kept[#kept + 1] = ARGV[i]
  end
end
return kept
"""
