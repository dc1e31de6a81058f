/*
 * The scripts of the shared journal: each changes one partition, whole or not at all.
 *
 * Keys     KEYS is always the same seven of a partition (m s p d a e o, see share.h); rows, chains,
 *          idempotency keys and operations are of the same hash tag, and named within: Redis
 *          Cluster allows that a script touches other keys of its slot. BEAT, LEAVE, PAUSE and LIVE
 *          are of the fleet's own keys.
 * Memory   what takes writes is refused by a Redis that is out of memory before it begins; what
 *          settles, renews and frees is not (allow-oom).
 * Numbers  a seq is counter * 64 + partition, below 2^53: Lua and the scores of sorted sets have
 *          doubles. Answers begin with a number of enum journal_result.
 */
#include "write/share.h"

#define FREES "#!lua flags=allow-oom\n"
#define TAKES "#!lua\n"
#define READS "#!lua flags=no-writes\n"

#define KEYS_OF_PART \
    "local m,s,p,d,a,e,o=KEYS[1],KEYS[2],KEYS[3],KEYS[4],KEYS[5],KEYS[6],KEYS[7]\n" \
    "local b=string.sub(m,1,-2)\n" \
    "local call,h=redis.call,b..'h'\n" \
    "local function wake(what) call('PUBLISH',string.match(m,'^(.*){j')..'{j}wake',what) end\n" \
    "local function now() local t=call('TIME') return t[1]*1000+math.floor(t[2]/1000) end\n" \
    "local function text(n) return string.format('%.0f',n) end\n"

#define HELD \
    "local function held(q) local x=call('ZSCORE',h,q) return x and x~='inf' end\n"

#define KEYS_OF_FLEET \
    "local secret,live,paused=KEYS[1],KEYS[2],KEYS[3]\n" \
    "local call=redis.call\n" \
    "local function wake(what) call('PUBLISH',string.match(secret,'^(.*){j')..'{j}wake',what) end\n"

/* ARGV: 1 part, 2 floor, 3 operation, 4 its time, 5 who asks, 6 key, 7 its time ('0': none),
 * 8 fingerprint, 9 '1': no room for keys, 10 '1': promised, 11 whose open claim may be claimed
 * again. A key that is there: what is to be answered; else nil. Of a write that waits for replicas
 * '1' goes with it, and something is written: WAIT is for what this connection wrote. */
#define JUDGE \
    "local K,ix=b..'i:'..ARGV[6],b..'x'\n" \
    "local function judge()\n" \
    "  local k=call('HMGET',K,'f','q','s','t','h','y','r','x')\n" \
    "  if k[1] then\n" \
    "    if k[8]==ARGV[3] then return {0,k[2],0,''} end\n" \
    "    if k[1]~=ARGV[8] then return {2} end\n" \
    "    if k[3]=='0' then\n" \
    "      local few=call('ZSCORE',h,k[2]) and '1' or ''\n" \
    "      if few=='1' then call('HSET',K,'f',k[1]) end\n" \
    "      return {1,k[2],few}\n" \
    "    end\n" \
    "    if k[3]=='2' then return {1,'0',k[2],k[4],k[5],k[6]} end\n" \
    "    if k[3]=='1' and k[7]~=ARGV[11] then return {3,k[7]} end\n" \
    "    if ARGV[10]~='1' then return {3,''} end\n" \
    "  end\n" \
    "  if ARGV[9]=='1' then return {5} end\n" \
    "end\n" \
    "local function drop_key()\n" \
    "  local n=call('HGET',K,'n')\n" \
    "  if n and call('ZREM',ix,ARGV[6]..':'..n)==1 then call('HINCRBY',m,'k',-n) end\n" \
    "  call('DEL',K)\n" \
    "end\n" \
    "local function enter(q,state)\n" \
    "  drop_key()\n" \
    "  call('HSET',K,'f',ARGV[8],'q',q,'s',state,'r',ARGV[5],'x',ARGV[3],'n',160)\n" \
    "  call('PEXPIRE',K,ARGV[7])\n" \
    "  if call('ZADD',ix,text(now()+ARGV[7]),ARGV[6]..':160')==1 then\n" \
    "    call('HINCRBY',m,'k',160)\n" \
    "  end\n" \
    "end\n" \
    "local lost='0'\n" \
    "local function number()\n" \
    "  local c,told=tonumber(call('HGET',m,'c') or '0'),tonumber(ARGV[2])\n" \
    "  if c<told then c,lost=told,'1' end\n" \
    "  c=c+1\n" \
    "  call('HSET',m,'v',1,'c',text(c))\n" \
    "  return text(c*64+ARGV[1])\n" \
    "end\n"

/* ... 12 bytes, 13 z, 14 r, 15 c, 16 b, 17 c1, 18 c2 or '', 19 how long it is held for
 * replicas, in ms, or '0'. */
#define ACCEPT \
    "local X=b..'o:'..ARGV[3]\n" \
    "local q=call('GET',X)\n" \
    "if q then call('PEXPIRE',X,ARGV[4]) return {0,q,0} end\n" \
    "if ARGV[7]~='0' then local r=judge() if r then return r end end\n" \
    "q=number()\n" \
    "local c1,c2=b..'k:'..ARGV[17],b..'t:'..ARGV[18]\n" \
    "local before=call('ZCARD',c1)+call('ZCARD',b..'t:'..ARGV[17])\n" \
    "local id='0-0'\n" \
    "if ARGV[19]=='0' then id=call('XADD',s,'*','w',q)\n" \
    "else call('ZADD',h,text(now()+ARGV[19]),q) end\n" \
    "call('HSET',b..'w:'..q,'st',0,'at',0,'n',ARGV[12],'c1',ARGV[17],'c2',ARGV[18],'ev',id,\n" \
    "  'z',ARGV[13],'r',ARGV[14],'c',ARGV[15],'b',ARGV[16])\n" \
    "call('HINCRBY',m,'b',ARGV[12])\n" \
    "call('ZADD',p,q,q) call('ZADD',a,q,q) call('ZADD',c1,q,q)\n" \
    "if ARGV[18]~='' then call('ZADD',c2,q,q) end\n" \
    "call('SET',X,q,'PX',ARGV[4])\n" \
    "if ARGV[7]~='0' then enter(q,0) end\n" \
    "if ARGV[19]=='0' and call('GET',o)~=ARGV[5] then wake(ARGV[1]) end\n" \
    "return {0,q,before,lost}\n"

/* What is held up to a seq is told to the owner, in order. Not `good`: since its time is out, and
 * it stays known that replicas may not have it. */
#define RELEASING \
    "local function release(upto,good)\n" \
    "  local all,told=call('ZRANGE',h,0,-1,'WITHSCORES'),{}\n" \
    "  for i=1,#all,2 do\n" \
    "    if tonumber(all[i])<=upto then\n" \
    "      if all[i+1]~='inf' then told[#told+1]=tonumber(all[i]) end\n" \
    "      if good then call('ZREM',h,all[i]) else call('ZADD',h,'+inf',all[i]) end\n" \
    "    end\n" \
    "  end\n" \
    "  table.sort(told)\n" \
    "  for _,n in ipairs(told) do\n" \
    "    call('HSET',b..'w:'..text(n),'ev',call('XADD',s,'*','w',text(n)))\n" \
    "  end\n" \
    "  if #told>0 then wake(string.match(m,'{j(%d+)}m$')) end\n" \
    "end\n"

/* ARGV: 1 up to which seq replicas have them. */
#define RELEASE \
    "release(tonumber(ARGV[1]),true)\n" \
    "return {0,ARGV[1]}\n"

#define CLAIM \
    "local r=judge() if r then return r end\n" \
    "local q=number()\n" \
    "enter(q,1)\n" \
    "return {0,q,0,lost}\n"

/* ARGV: 1 key, 2 who asks, 3 seq or '0', then of CLAIM_END 4 state, 5 status, 6 head, 7 '1': there
 * is a body, 8 body, 9 bytes that keys may still take; of CLAIM_RELEASE 4 the operation that made
 * it or ''. */
#define OPEN_CLAIM \
    "local K,ix=b..'i:'..ARGV[1],b..'x'\n" \
    "local k=call('HMGET',K,'s','r','q','n')\n" \
    "if k[1]~='1' or k[2]~=ARGV[2] or (ARGV[3]~='0' and k[3]~=ARGV[3]) then return {6} end\n" \
    "local old=ARGV[1]..':'..k[4]\n"

#define CLAIM_END \
    "local n=160+#ARGV[6]+#ARGV[8]\n" \
    "local whole=n-k[4]<=tonumber(ARGV[9])\n" \
    "if not whole then n=160 end\n" \
    "local till=call('ZSCORE',ix,old)\n" \
    "call('HSET',K,'s',ARGV[4],'t',ARGV[5],'n',n)\n" \
    "if whole then call('HSET',K,'h',ARGV[6]) end\n" \
    "if whole and ARGV[7]=='1' then call('HSET',K,'y',ARGV[8]) end\n" \
    "if till then\n" \
    "  call('ZREM',ix,old)\n" \
    "  call('ZADD',ix,till,ARGV[1]..':'..n)\n" \
    "  call('HINCRBY',m,'k',n-k[4])\n" \
    "end\n" \
    "return {0}\n"

#define CLAIM_RELEASE \
    "if ARGV[4]~='' and call('HGET',K,'x')~=ARGV[4] then return {6} end\n" \
    "if call('ZREM',ix,old)==1 then call('HINCRBY',m,'k',-k[4]) end\n" \
    "call('DEL',K)\n" \
    "return {0}\n"

/* ARGV: 1 seq, 2 who asks: 'o' the owner, 'v' a verb, 'c' a reader that condemns, 'u' who accepted
 * it and takes it back while it is held, 3 token, 4 state, 5 attempts (of one that waits again to
 * be sent there must be more: else it comes late), 6 v, 7 '1': fields and body are let go, 8 '1': 9
 * is its answer, 10 '1': settled ones are kept, 11 settled_ms, 12 state before (verb), 13 attempts
 * before, 14 operation, 15 part, 16 a key to be forgotten with it or ''. */
#define UPDATE \
    "local q,how,st=ARGV[1],ARGV[2],tonumber(ARGV[4])\n" \
    "local w=b..'w:'..q\n" \
    "if how=='o' and call('HGET',m,'t')~=ARGV[3] then return {7} end\n" \
    "local f=call('HMGET',w,'st','at','c1','c2','ev','z','r','x')\n" \
    "if not f[1] then return {6,'none'} end\n" \
    "local was=tonumber(f[1])\n" \
    "local function settled(x) return x>=3 and x<=5 end\n" \
    "if how=='o' then\n" \
    "  if was>2 then\n" \
    "    if was==st then return {0,f[6],f[7]} end\n" \
    "    return {6}\n" \
    "  end\n" \
    "  if was==2 and st==1 and tonumber(ARGV[5])<=tonumber(f[2]) then return {6} end\n" \
    "elseif f[8]==ARGV[14] then return {0,f[6],f[7]}\n" \
    "elseif how=='u' then\n" \
    "  if not held(q) then return {6} end\n" \
    "elseif how=='v' then\n" \
    "  if settled(was) or was==1 or held(q) or f[1]~=ARGV[12] or f[2]~=ARGV[13] then\n" \
    "    return {6}\n" \
    "  end\n" \
    "elseif was>2 then return {6} end\n" \
    "local n=0\n" \
    "if ARGV[8]=='1' then\n" \
    "  n=#ARGV[9]-call('HSTRLEN',w,'a')\n" \
    "  call('HSET',w,'a',ARGV[9])\n" \
    "end\n" \
    "call('HSET',w,'st',st,'v',ARGV[6])\n" \
    "if ARGV[5]~='' then call('HSET',w,'at',ARGV[5]) end\n" \
    "if settled(st) or ARGV[7]=='1' then\n" \
    "  n=n-call('HSTRLEN',w,'b')\n" \
    "  call('HDEL',w,'b')\n" \
    "end\n" \
    "if n~=0 then call('HINCRBY',m,'b',n) call('HINCRBY',w,'n',n) end\n" \
    "local unread=held(q)\n" \
    "if st>2 or how~='o' then call('ZREM',h,q) end\n" \
    "if how~='o' then\n" \
    "  local function parts(id) return string.match(id,'^(%d+)-(%d+)$') end\n" \
    "  local ok,groups=pcall(call,'XINFO','GROUPS',s)\n" \
    "  for _,g in ipairs(ok and groups or {}) do\n" \
    "    for i=1,#g,2 do\n" \
    "      if g[i]=='last-delivered-id' then\n" \
    "        local t1,n1=parts(f[5]) local t2,n2=parts(g[i+1])\n" \
    "        t1,n1,t2,n2=tonumber(t1),tonumber(n1),tonumber(t2),tonumber(n2)\n" \
    "        unread=unread or t1>t2 or (t1==t2 and n1>n2)\n" \
    "      end\n" \
    "    end\n" \
    "  end\n" \
    "end\n" \
    "if was<=2 and (st>2 or how~='o') then\n" \
    "  pcall(call,'XACK',s,'weir',f[5]) call('XDEL',s,f[5])\n" \
    "end\n" \
    "if was<=2 and st>2 then\n" \
    "  call('ZREM',p,q) call('ZREM',b..'k:'..f[3],q)\n" \
    "  if f[4]~='' then call('ZREM',b..'t:'..f[4],q) end\n" \
    "elseif was>2 and st<=2 then\n" \
    "  call('ZADD',p,q,q) call('ZADD',b..'k:'..f[3],q,q)\n" \
    "  if f[4]~='' then call('ZADD',b..'t:'..f[4],q,q) end\n" \
    "end\n" \
    "if st>5 then call('ZADD',d,q,q) elseif was>5 then call('ZREM',d,q) end\n" \
    "if how~='o' then call('HSET',w,'x',ARGV[14]) end\n" \
    "if how~='o' and how~='u' then\n" \
    "  call('HSET',w,'ev',call('XADD',s,'*','w',q,'f',unread and 9 or was,'t',st))\n" \
    "  wake(ARGV[15])\n" \
    "end\n" \
    "if ARGV[16]~='' and call('HGET',b..'i:'..ARGV[16],'q')==q then\n" \
    "  local k=call('HGET',b..'i:'..ARGV[16],'n')\n" \
    "  if call('ZREM',b..'x',ARGV[16]..':'..k)==1 then call('HINCRBY',m,'k',-k) end\n" \
    "  call('DEL',b..'i:'..ARGV[16])\n" \
    "end\n" \
    "if settled(st) then\n" \
    "  if ARGV[10]=='1' then call('ZADD',e,ARGV[11],q)\n" \
    "  else\n" \
    "    call('HINCRBY',m,'b',-call('HGET',w,'n'))\n" \
    "    call('DEL',w) call('ZREM',a,q)\n" \
    "  end\n" \
    "end\n" \
    "return {0,f[6],f[7]}\n"

/* ARGV: 1 who asks, 2 lease in ms. */
#define TAKE \
    "if call('SET',o,ARGV[1],'NX','PX',ARGV[2])==false then\n" \
    "  if call('GET',o)~=ARGV[1] then return {7} end\n" \
    "  call('PEXPIRE',o,ARGV[2])\n" \
    "end\n" \
    "local f=call('HMGET',m,'v','t','c')\n" \
    "if f[1] and f[1]~='1' then call('DEL',o) return {7} end\n" \
    "local token=text(math.max(tonumber(f[2] or '0')+1,now()))\n" \
    "call('HSET',m,'v',1,'t',token)\n" \
    "redis.pcall('XGROUP','CREATE',s,'weir','$','MKSTREAM')\n" \
    "call('XGROUP','DELCONSUMER',s,'weir','owner')\n" \
    "local first=call('ZRANGE',p,0,0)[1]\n" \
    "local ev=first and call('HGET',b..'w:'..first,'ev')\n" \
    "if ev then call('XTRIM',s,'MINID',ev) elseif not first then call('XTRIM',s,'MAXLEN',0) end\n" \
    "local info,last=call('XINFO','STREAM',s),'0-0'\n" \
    "for i=1,#info,2 do if info[i]=='last-generated-id' then last=info[i+1] end end\n" \
    "call('XGROUP','SETID',s,'weir',last)\n" \
    "return {0,token,f[3] or '0',last}\n"

/* ARGV: 1 token, 2 after which seq, 3 up to which, 4 how many. Behind one that is held all are. */
#define PAGE \
    "if call('HGET',m,'t')~=ARGV[1] then return {7} end\n" \
    "local r={0}\n" \
    "for _,q in ipairs(call('ZRANGEBYSCORE',p,'('..ARGV[2],ARGV[3],'LIMIT',0,ARGV[4])) do\n" \
    "  if held(q) then break end\n" \
    "  local f=call('HMGET',b..'w:'..q,'z','r','v','ev')\n" \
    "  r[#r+1]={q,f[1],f[2],f[3],f[4]}\n" \
    "end\n" \
    "return r\n"

/* ARGV: 1 token, 2 from which entry ('>': what is new), 3 how many, then entries that are done. */
#define READ \
    "if call('HGET',m,'t')~=ARGV[1] then return {7} end\n" \
    "for i=4,#ARGV do call('XACK',s,'weir',ARGV[i]) call('XDEL',s,ARGV[i]) end\n" \
    "local got=call('XREADGROUP','GROUP','weir','owner','COUNT',ARGV[3],'STREAMS',s,ARGV[2])\n" \
    "local r={0}\n" \
    "for _,n in ipairs(got and got[1][2] or {}) do\n" \
    "  local g={}\n" \
    "  for i=1,n[2] and #n[2] or 0,2 do g[n[2][i]]=n[2][i+1] end\n" \
    "  local f=g.w and call('HMGET',b..'w:'..g.w,'z','r','v','ev') or {}\n" \
    "  r[#r+1]={g.w or '0',f[1] or '',f[2] or '',f[3] or '',f[4] or '',n[1],g.f or '9',\n" \
    "    g.t or '0'}\n" \
    "end\n" \
    "return r\n"

/* ARGV: 1 who asks, 2 lease in ms, 3 '1': renew it, 4 the highest counter that was told. */
#define LOOK \
    "local late=0\n" \
    "for _,q in ipairs(call('ZRANGEBYSCORE',h,'-inf',text(now()))) do\n" \
    "  late=math.max(late,tonumber(q))\n" \
    "end\n" \
    "if late>0 then release(late,false) end\n" \
    "local owner=call('GET',o)\n" \
    "if ARGV[3]=='1' and owner==ARGV[1] then call('PEXPIRE',o,ARGV[2]) end\n" \
    "local f=call('HMGET',m,'v','c','b','k')\n" \
    "local lost='0'\n" \
    "if tonumber(f[2] or '0')<tonumber(ARGV[4]) and (f[1] or '1')=='1' then\n" \
    "  call('HSET',m,'v',1,'c',ARGV[4])\n" \
    "  lost='1'\n" \
    "end\n" \
    "local first=call('ZRANGE',p,0,0)[1]\n" \
    "local g=first and call('HMGET',b..'w:'..first,'z','r') or {}\n" \
    "local last=call('XREVRANGE',s,'+','-','COUNT',1)[1]\n" \
    "return {0,owner or '',f[1] or '1',f[2] or '0',f[3] or '0',f[4] or '0',call('ZCARD',p),\n" \
    "  call('ZCARD',d),last and last[1] or '0-0',lost,g[1] or '',g[2] or ''}\n"

/* ARGV: 1 who asks, 2 token: a late one gives nothing of what was taken since. */
#define GIVE \
    "if call('GET',o)==ARGV[1] and call('HGET',m,'t')==ARGV[2] then call('DEL',o) wake('g') end\n" \
    "return {0}\n"

/* ARGV: 1 settled before then, 2 how many. */
#define PRUNE \
    "local old=call('ZRANGEBYSCORE',e,'-inf','('..ARGV[1],'LIMIT',0,ARGV[2])\n" \
    "local n=0\n" \
    "for _,q in ipairs(old) do\n" \
    "  n=n+(call('HGET',b..'w:'..q,'n') or 0)\n" \
    "  call('DEL',b..'w:'..q) call('ZREM',e,q) call('ZREM',a,q)\n" \
    "end\n" \
    "if n>0 then call('HINCRBY',m,'b',text(-n)) end\n" \
    "local keys,k=call('ZRANGEBYSCORE',b..'x','-inf',text(now()),'LIMIT',0,ARGV[2]),0\n" \
    "for _,x in ipairs(keys) do\n" \
    "  k=k+string.match(x,':(%d+)$')\n" \
    "  call('ZREM',b..'x',x)\n" \
    "end\n" \
    "if k>0 then call('HINCRBY',m,'k',text(-k)) end\n" \
    "return {0,#old,#keys}\n"

/* ARGV: 1 after which seq, 2 how many, 3 'p', 'd' or 'a', 4 states: a bit each. */
#define EACH \
    "local got=call('ZRANGEBYSCORE',({p=p,d=d,a=a})[ARGV[3]],'('..ARGV[1],'+inf','LIMIT',0,\n" \
    "  ARGV[2])\n" \
    "local r={0,#got,got[#got] or '0'}\n" \
    "for _,q in ipairs(got) do\n" \
    "  local f=call('HMGET',b..'w:'..q,'z','r','v','st')\n" \
    "  if f[4] and math.floor(ARGV[4]/2^f[4])%2==1 then r[#r+1]={q,f[1],f[2],f[3]} end\n" \
    "end\n" \
    "return r\n"

/* ARGV: 1 hash, 2 after which seq, 3 '1': by target too. */
#define NEXT \
    "local function first(z) return call('ZRANGEBYSCORE',z..ARGV[1],'('..ARGV[2],'+inf',\n" \
    "  'LIMIT',0,1)[1] end\n" \
    "local q=first(b..'k:')\n" \
    "local other=ARGV[3]=='1' and first(b..'t:')\n" \
    "if other and (not q or tonumber(other)<tonumber(q)) then q=other end\n" \
    "if not q or held(q) then return {0} end\n" \
    "local f=call('HMGET',b..'w:'..q,'z','r','v')\n" \
    "return {0,{q,f[1],f[2],f[3]}}\n"

/* ARGV: 1 who asks, 2 lease in ms, 3 the secret, where there is none, 4 its name behind '!' where
 * it wants no partitions, or ''. */
#define BEAT \
    "local t=call('TIME')\n" \
    "local now=t[1]*1000+math.floor(t[2]/1000)\n" \
    "call('ZREMRANGEBYSCORE',live,'-inf',string.format('%.0f',now))\n" \
    "call('ZADD',live,string.format('%.0f',now+ARGV[2]),ARGV[1])\n" \
    "if ARGV[4]~='' then call('ZADD',live,string.format('%.0f',now+ARGV[2]),ARGV[4]) end\n" \
    "call('SET',secret,ARGV[3],'NX')\n" \
    "return {0,call('GET',secret),call('ZRANGE',live,0,-1),call('SMEMBERS',paused)}\n"

#define LEAVE \
    "call('ZREM',live,ARGV[1],'!'..ARGV[1])\n" \
    "wake('g')\n" \
    "return {0}\n"

/* ARGV: 1 name, 2 '1': paused. */
#define PAUSE \
    "if ARGV[2]=='1' then call('SADD',paused,ARGV[1])\n" \
    "elseif ARGV[1]=='all' then call('DEL',paused)\n" \
    "else call('SREM',paused,ARGV[1]) end\n" \
    "wake('p')\n" \
    "return {0}\n"

/* For those that move the journal: ARGV 1 '0' look, '1' mark, '2' unmark; 2 the least counter. */
#define MARK \
    "local f=call('HMGET',m,'v','t','c')\n" \
    "if f[1] and f[1]~='0' and f[1]~='1' then return {4} end\n" \
    "if ARGV[1]=='2' then\n" \
    "  call('HSET',m,'v',1,'c',text(math.max(tonumber(f[3] or '0'),tonumber(ARGV[2]))))\n" \
    "  return {0}\n" \
    "end\n" \
    "local owner=call('GET',o)\n" \
    "if owner then return {3,owner} end\n" \
    "if ARGV[1]=='1' then\n" \
    "  call('HSET',m,'v',0,'t',text(math.max(tonumber(f[2] or '0')+1,now())))\n" \
    "end\n" \
    "return {0,call('ZCARD',a),call('ZCARD',b..'x'),f[3] or '0',f[1] or ''}\n"

/* ARGV: 1 seq, 2 state, 3 attempts, 4 bytes, 5 c1, 6 c2 or '', 7 z, 8 r, 9 c, 10 '1': there is 11
 * b, 12 a or '', 13 settled_ms, 14 '1': pending, 15 '1': dead. One that is there stays. */
#define PUT \
    "if call('HGET',m,'v')~='0' then return {7} end\n" \
    "local q=ARGV[1]\n" \
    "local w=b..'w:'..q\n" \
    "if call('EXISTS',w)==1 then return {1} end\n" \
    "call('HSET',w,'st',ARGV[2],'at',ARGV[3],'n',ARGV[4],'c1',ARGV[5],'c2',ARGV[6],'ev','0-0',\n" \
    "  'z',ARGV[7],'r',ARGV[8],'c',ARGV[9])\n" \
    "if ARGV[10]=='1' then call('HSET',w,'b',ARGV[11]) end\n" \
    "if ARGV[12]~='' then call('HSET',w,'a',ARGV[12]) end\n" \
    "call('HINCRBY',m,'b',ARGV[4])\n" \
    "call('ZADD',a,q,q)\n" \
    "if ARGV[14]=='1' then\n" \
    "  call('HSET',w,'ev',call('XADD',s,'*','w',q))\n" \
    "  call('ZADD',p,q,q) call('ZADD',b..'k:'..ARGV[5],q,q)\n" \
    "  if ARGV[6]~='' then call('ZADD',b..'t:'..ARGV[6],q,q) end\n" \
    "elseif ARGV[15]=='1' then call('ZADD',d,q,q)\n" \
    "else call('ZADD',e,ARGV[13],q) end\n" \
    "return {0}\n"

/* ARGV: 1 key, 2 when its time is out, 3 fingerprint, 4 seq, 5 state, 6 status, 7 head, 8 '1':
 * there is 9 body, 10 bytes. */
#define PUT_KEY \
    "if call('HGET',m,'v')~='0' then return {7} end\n" \
    "local K=b..'i:'..ARGV[1]\n" \
    "if call('EXISTS',K)==1 then return {1} end\n" \
    "call('HSET',K,'f',ARGV[3],'q',ARGV[4],'s',ARGV[5],'t',ARGV[6],'h',ARGV[7],'r','','x','',\n" \
    "  'n',ARGV[10])\n" \
    "if ARGV[8]=='1' then call('HSET',K,'y',ARGV[9]) end\n" \
    "call('PEXPIREAT',K,ARGV[2])\n" \
    "if call('ZADD',b..'x',ARGV[2],ARGV[1]..':'..ARGV[10])==1 then\n" \
    "  call('HINCRBY',m,'k',ARGV[10])\n" \
    "end\n" \
    "return {0}\n"

/* ARGV: 1 how many, 2 '1': it stays marked. */
#define WIPE \
    "if call('HGET',m,'v')=='1' then return {7} end\n" \
    "for _,q in ipairs(call('ZRANGE',a,0,ARGV[1]-1)) do\n" \
    "  local f=call('HMGET',b..'w:'..q,'c1','c2')\n" \
    "  call('DEL',b..'w:'..q,b..'k:'..(f[1] or ''),b..'t:'..(f[2] or ''))\n" \
    "  call('ZREM',a,q)\n" \
    "end\n" \
    "for _,k in ipairs(call('ZRANGE',b..'x',0,ARGV[1]-1)) do\n" \
    "  call('DEL',b..'i:'..string.match(k,'^(.*):'))\n" \
    "  call('ZREM',b..'x',k)\n" \
    "end\n" \
    "local left=call('ZCARD',a)+call('ZCARD',b..'x')\n" \
    "if left==0 then\n" \
    "  call('DEL',m,s,p,d,e,o,h)\n" \
    "  if ARGV[2]=='1' then call('HSET',m,'v',0) end\n" \
    "end\n" \
    "return {0,left}\n"

#define LIVE \
    "local t=call('TIME')\n" \
    "local now=string.format('%.0f',t[1]*1000+math.floor(t[2]/1000))\n" \
    "return {0,call('ZRANGEBYSCORE',live,now,'+inf'),call('GET',secret) or ''}\n"

const char *const share_lua[SHARE_SCRIPTS] = {
    [LUA_ACCEPT] = TAKES KEYS_OF_PART JUDGE ACCEPT,
    [LUA_CLAIM] = TAKES KEYS_OF_PART JUDGE CLAIM,
    [LUA_CLAIM_END] = FREES KEYS_OF_PART OPEN_CLAIM CLAIM_END,
    [LUA_CLAIM_RELEASE] = FREES KEYS_OF_PART OPEN_CLAIM CLAIM_RELEASE,
    [LUA_UPDATE] = FREES KEYS_OF_PART HELD UPDATE,
    [LUA_RELEASE] = FREES KEYS_OF_PART RELEASING RELEASE,
    [LUA_TAKE] = FREES KEYS_OF_PART TAKE,
    [LUA_PAGE] = READS KEYS_OF_PART HELD PAGE,
    [LUA_READ] = FREES KEYS_OF_PART READ,
    [LUA_LOOK] = FREES KEYS_OF_PART RELEASING LOOK,
    [LUA_GIVE] = FREES KEYS_OF_PART GIVE,
    [LUA_PRUNE] = FREES KEYS_OF_PART PRUNE,
    [LUA_EACH] = READS KEYS_OF_PART EACH,
    [LUA_NEXT] = READS KEYS_OF_PART HELD NEXT,
    [LUA_BEAT] = FREES KEYS_OF_FLEET BEAT,
    [LUA_LEAVE] = FREES KEYS_OF_FLEET LEAVE,
    [LUA_PAUSE] = FREES KEYS_OF_FLEET PAUSE,
    [LUA_MARK] = FREES KEYS_OF_PART MARK,
    [LUA_PUT] = TAKES KEYS_OF_PART PUT,
    [LUA_PUT_KEY] = TAKES KEYS_OF_PART PUT_KEY,
    [LUA_WIPE] = FREES KEYS_OF_PART WIPE,
    [LUA_LIVE] = FREES KEYS_OF_FLEET LIVE,
};
