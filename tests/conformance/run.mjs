/*
 * Runs the public HTTP cache tests (npm package http-cache-tests) against Weir, and compares with
 * the recorded list of expected failures.
 *
 *   node run.mjs [--weir PATH] [--suite CHECKOUT] [--id TEST] [--base URL] [--port PORT]
 *               [--update] [--results FILE]
 *
 *   --weir PATH       the executable (default: ../../build/weir)
 *   --suite CHECKOUT  another version of the suite, such as a checkout of its repository with its
 *                     packages installed; counts only, the list is not consulted
 *   --id TEST         one test, with its requests and answers printed
 *   --base URL        a cache that already runs in front of port --port, instead of Weir
 *   --port PORT       the suite's server listens here (default: a free port)
 *   --update          takes what now passes off the list; it never grows by this
 *   --results FILE    writes every result as JSON
 *
 * Model    three processes: the suite's server as the origin, Weir in front of it, and the suite's
 *          client, whose requests all go through Weir. A test that fails against the list runs a
 *          second time by itself before it counts, for the tests depend on whole seconds.
 * Passed   true from the suite, and all that the test depends on passed too. Tests of browsers
 *          alone do not run. expected-failures.json names required and optimal tests; it may only
 *          shrink, so a test on it that passes is a failure as well.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { createRequire } from 'node:module'

const here = path.dirname(fileURLToPath(import.meta.url))
const listFile = path.join(here, 'expected-failures.json')

function parseArguments (argv) {
  const options = {
    weir: path.join(here, '../../build/weir'),
    suite: path.join(here, 'node_modules/http-cache-tests')
  }
  for (let i = 0; i < argv.length; i++) {
    const name = argv[i].replace(/^--/, '')
    if (name === 'update') options.update = true
    else if (['weir', 'suite', 'id', 'base', 'port', 'results', 'client', 'ids'].includes(name)) options[name] = argv[++i]
    else throw new Error(`unknown argument ${argv[i]}`)
  }
  options.pinned = path.resolve(options.suite) === path.join(here, 'node_modules/http-cache-tests')
  options.suite = path.resolve(options.suite)
  return options
}

/* The suite keeps its engine at the top (0.4.5) or in test-engine/ (later). */
function engine (suite, file) {
  const nested = path.join(suite, 'test-engine', file)
  return fs.existsSync(nested) ? nested : path.join(suite, file)
}

const load = file => import(pathToFileURL(file).href)

async function loadTests (suite) {
  const suites = (await load(path.join(suite, 'tests/index.mjs'))).default
  return suites.flatMap(s => s.tests).filter(t => t.browser_only !== true)
}

/* ---- the client, in a process of its own: the suite's runner keeps its results globally ---- */

async function client (options) {
  const { runTests, getResults } = await load(engine(options.suite, 'client/runner.mjs'))
  const ids = options.ids ? options.ids.split(',') : null
  let tests = await loadTests(options.suite)
  if (ids) tests = tests.filter(t => ids.includes(t.id))
  if (ids && ids.length === 1 && options.id) tests.forEach(t => { t.dump = true })
  const set = [{ name: 'all', id: 'all', tests }]
  if (runTests.length >= 4 || /myFetch/.test(runTests.toString())) {
    const require = createRequire(path.join(options.suite, 'package.json'))
    await runTests(set, require('node-fetch'), false, options.client)
  } else {
    await runTests(set, false, options.client)
  }
  fs.writeFileSync(options.results, JSON.stringify(getResults()))
  process.exit(0)
}

/* ---- the processes ---- */

async function freePort () {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const port = server.address().port
  server.close()
  await once(server, 'close')
  return port
}

function start (command, args, settings, log) {
  const out = fs.openSync(log, 'w')
  const child = spawn(command, args, { stdio: ['ignore', out, out], ...settings })
  child.on('error', e => { child.failure = e.message })
  child.log = log
  return child
}

async function await200 (url, child) {
  for (let i = 0; i < 300; i++) {
    if (child.exitCode !== null || child.failure) break
    try {
      if ((await fetch(url)).status === 200) return
    } catch {}
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`no answer from ${url}: ${child.failure || ''}\n${fs.readFileSync(child.log)}`)
}

async function stop (child) {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
  return child.exitCode
}

async function startServer (options, work, port) {
  const child = start(process.execPath, [engine(options.suite, 'server/server.mjs')], {
    cwd: options.suite,
    env: {
      ...process.env,
      npm_config_protocol: 'http',
      npm_config_port: String(port),
      npm_config_pidfile: path.join(work, 'server.pid')
    }
  }, path.join(work, 'server.log'))
  await await200(`http://127.0.0.1:${port}/`, child)
  return child
}

async function startWeir (options, work, port) {
  const [listen, admin] = [await freePort(), await freePort()]
  const config = path.join(work, 'weir.yaml')
  fs.writeFileSync(config, `listen: 127.0.0.1:${listen}
admin: {listen: 127.0.0.1:${admin}}
workers: 1
origins:
  suite: {servers: ["http://127.0.0.1:${port}"], discard_surplus: true}
routes:
  - path: /**
    origin: suite
    stale_if_error: 1h
    response: {replay: [Set-Cookie, Clear-Site-Data]}
`)
  const child = start(options.weir, ['run', '-c', config], {}, path.join(work, 'weir.log'))
  await await200(`http://127.0.0.1:${admin}/readyz`, child)
  child.base = `http://127.0.0.1:${listen}`
  return child
}

async function runClient (options, work, base, ids) {
  const results = path.join(work, 'results.json')
  const args = ['--no-warnings', fileURLToPath(import.meta.url), '--client', base, '--suite', options.suite, '--results', results]
  if (ids) args.push('--ids', ids.join(','))
  if (options.id) args.push('--id', options.id)
  const child = spawn(process.execPath, args, { stdio: ['ignore', options.id ? 'inherit' : 'ignore', 'inherit'] })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`the suite's client ended with ${code}`)
  return JSON.parse(fs.readFileSync(results))
}

/* ---- judging ---- */

const kindOf = test => test.kind || 'required'

function judge (tests, results) {
  const byId = new Map(tests.map(t => [t.id, t]))
  const passes = id => results[id] === true && (byId.get(id)?.depends_on || []).every(passes)
  return new Map(tests.map(t => [t.id, passes(t.id)]))
}

function withDependencies (tests, ids) {
  const byId = new Map(tests.map(t => [t.id, t]))
  const all = new Set()
  const add = id => { if (!all.has(id)) { all.add(id); (byId.get(id)?.depends_on || []).forEach(add) } }
  ids.forEach(add)
  return [...all]
}

function why (results, id) {
  const r = results[id]
  return r === true ? 'what it depends on failed' : Array.isArray(r) ? r.join(': ') : String(r)
}

function printCounts (tests, passed) {
  for (const kind of ['required', 'optimal', 'check']) {
    const of = tests.filter(t => kindOf(t) === kind)
    console.log(`${kind}: ${of.filter(t => passed.get(t.id)).length} of ${of.length}`)
  }
}

async function compare (options, tests, first, again) {
  const counted = tests.filter(t => kindOf(t) !== 'check').map(t => t.id)
  const list = JSON.parse(fs.readFileSync(listFile))
  let passed = judge(tests, first)
  const results = { ...first }
  const surprising = counted.filter(id => !passed.get(id) && !list.includes(id))
  if (surprising.length > 0 && surprising.length <= 40) {
    Object.assign(results, await again(withDependencies(tests, surprising)))
    passed = judge(tests, results)
  }
  printCounts(tests, passed)
  const failed = counted.filter(id => !passed.get(id) && !list.includes(id))
  const better = list.filter(id => passed.get(id))
  const unknown = list.filter(id => !counted.includes(id))
  failed.forEach(id => console.log(`FAILED ${id}: ${why(results, id)}`))
  if (options.update) {
    fs.writeFileSync(listFile, JSON.stringify(list.filter(id => !better.includes(id) && !unknown.includes(id)), null, 2) + '\n')
  } else {
    better.forEach(id => console.log(`FAILED ${id}: passes, so take it off expected-failures.json (--update)`))
    unknown.forEach(id => console.log(`FAILED ${id}: on expected-failures.json, but no such test`))
  }
  const bad = failed.length + (options.update ? 0 : better.length + unknown.length)
  const good = counted.filter(id => passed.get(id)).length
  console.log(`${good} passed, ${bad} failed, ${list.length - better.length} expected failures`)
  return bad === 0 ? 0 : 1
}

async function main () {
  const options = parseArguments(process.argv.slice(2))
  if (options.client) return client(options)
  const work = fs.mkdtempSync(path.join(os.tmpdir(), 'weir-conformance-'))
  const children = []
  let status = 1
  try {
    const port = Number(options.port) || await freePort()
    const tests = await loadTests(options.suite)
    children.push(await startServer(options, work, port))
    let base = options.base
    if (!base) {
      children.unshift(await startWeir(options, work, port))
      base = children[0].base
    }
    const results = await runClient(options, work, base, options.id ? [options.id] : null)
    if (options.results) fs.writeFileSync(options.results, JSON.stringify(results, null, 1) + '\n')
    if (options.id) {
      console.log(`${options.id}: ${JSON.stringify(results[options.id])}`)
      status = results[options.id] === true ? 0 : 1
    } else if (!options.pinned || options.base) {
      printCounts(tests, judge(tests, results))
      status = 0
    } else {
      status = await compare(options, tests, results, ids => runClient(options, work, base, ids))
    }
  } finally {
    for (const child of children) {
      const code = await stop(child)
      if (child.base && code !== 0) {
        console.log(`weir ended with ${code}\n${fs.readFileSync(child.log)}`)
        status = 1
      }
    }
    fs.rmSync(work, { recursive: true })
  }
  process.exit(status)
}

main().catch(e => {
  console.error(e.message)
  process.exit(1)
})
