"""What Redis does to a mission in one step: the scripts of `log.py`.

The law: a script touches the keys of one mission only, which share a slot of a cluster, and decides
by the epoch who may write. Each is short, since Redis does nothing else meanwhile.
"""

from __future__ import annotations

from typing import Final

# KEYS: log, head, nodes. ARGV: epoch, first and last number, the events, the final status or "",
# when it ended, how long to keep it, whether a node ended in it, the channel, then pairs of node
# and outcome. A second copy of an append, whose answer was lost, is answered alike and changes
# nothing.
APPEND: Final = """
local head = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
if not head[1] then return 'gone' end
if head[1] ~= ARGV[1] then return 'stale' end
local seq, first, last = tonumber(head[2]), tonumber(ARGV[2]), tonumber(ARGV[3])
if seq >= last and last >= first then return 'done' end
if seq ~= first - 1 then return 'gap' end
if last >= first then
  redis.call('XADD', KEYS[1], last .. '-0', 'e', ARGV[4])
  redis.call('HSET', KEYS[2], 'seq', last)
end
for i = 10, #ARGV, 1000 do
  redis.call('HSET', KEYS[3], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if ARGV[8] == '1' then redis.call('HSET', KEYS[2], 'claims', 0) end
if seq == 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
  redis.call('PEXPIRE', KEYS[3], ARGV[7])
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], 'status', ARGV[5], 'finished', ARGV[6])
  for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[7]) end
end
if last >= first then
  redis.call('SPUBLISH', ARGV[9], first .. (ARGV[5] ~= '' and ' 1\\n' or ' 0\\n') .. ARGV[4])
end
return 'done'
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
