"""What a person types, and what they read back."""
import json
import os
import shlex
import socket
import subprocess
import threading
import time

import pytest

import harness
from harness import check, run_cli

MINIMAL = "origins: {a: {servers: http://127.0.0.1:1}}\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weir.yaml"
    path.write_text(MINIMAL)
    return str(path)


@pytest.fixture
def peer():
    """A factory of listeners that do one thing to each connection; returns their URL."""
    made = []

    def make(act):
        s = socket.create_server(("127.0.0.1", 0))
        kept = []

        def serve():
            while True:
                try:
                    c, _ = s.accept()
                except OSError:
                    return
                kept.append(c)
                act(c)
        threading.Thread(target=serve, daemon=True).start()
        made.append(s)
        return "http://127.0.0.1:%d" % s.getsockname()[1]
    yield make
    for s in made:
        s.shutdown(socket.SHUT_RDWR)
        s.close()


# ---- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("args,said", [
    (["purge", "--al"], "unknown option --al; did you mean --all"),
    (["purge", "--dry"], "unknown option --dry"),
    (["purge", "--url", "--al", "--soft=1"], "--soft takes no value"),
    (["purge", "--tag"], "--tag lacks its value"),
    (["stats", "-x"], "unknown option -x"),
    (["stats", "--timeout", "0"], "--timeout 0"),
    (["check", "--conf", "x"], "unknown option --conf; did you mean --config"),
    (["--orign", "http://a"], "unknown option --orign; did you mean --origin"),
    (["check", "-c"], "-c lacks its value"),
    (["chek"], "unknown command: chek; did you mean check"),
    (["schema", "x"], "not understood: x"), (["version", "--x"], "not understood: --x"),
    (["check", "-c", "a", "-c", "b"], "given twice"),
    (["check", "a", "b"], "not understood: b"),
    (["run", "--origin", "http://a", "--listen", ":1", "--listen", ":2"], "given twice"),
])
def test_what_is_not_understood_is_named(args, said):
    ended = run_cli(*args)
    assert ended.returncode == 2 and said in ended.stderr


def test_the_beginning_of_an_option_purges_nothing(origin, weir):
    origin.on("/a", body=b"x", headers=[("Cache-Control", "max-age=60")])
    w = weir()
    w.get("/a")
    assert w.cli("purge", "--admin", w.admin_url, "--al").returncode == 2
    assert w.get("/a").cache_status.hit


def test_check_takes_the_file_with_and_without_its_option(file):
    for args in (["-c", file], [file], ["--config=" + file]):
        ended = run_cli("check", *args)
        assert (ended.returncode, ended.stdout) == (0, "%s: ok, 1 route, 0 warnings\n" % file)


def journal_at(path, tmp_path):
    return check("origins: {a: {servers: ['http://127.0.0.1:1']}}\njournal: {path: '%s'}\n"
                 "routes: [{policy: write-back}]\n" % path, tmp_path)


def test_check_says_that_a_journal_cannot_be_a_directory_or_another_programs_file(tmp_path):
    other = tmp_path / "notes"
    other.write_text("mine")
    for path, said in ((tmp_path, "this is a directory; name a file in it as journal.path"),
                       (other, "this is another program's file, and stays as it is; name another "
                               "file as journal.path")):
        ended = journal_at(path, tmp_path)
        assert ended.returncode == 1
        assert ended.stdout.endswith("checked.yaml: journal %s: %s\n" % (path, said)), ended.stdout
    assert other.read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == [
        "checked.yaml", "notes"]


def test_check_warns_where_the_directory_of_the_journal_is_yet_to_be_made(tmp_path):
    ended = journal_at(tmp_path / "later" / "journal", tmp_path)
    assert ended.returncode == 0 and "warning: journal " in ended.stdout
    assert "there is no directory %s; make it" % (tmp_path / "later") in ended.stdout
    assert ended.stdout.endswith("ok, 1 route, 1 warning\n")
    ended = journal_at(tmp_path / "journal", tmp_path)
    assert ended.stdout.endswith("ok, 1 route, 0 warnings\n")


@pytest.mark.parametrize("args,said", [
    (["--listen", "99999"], 'command line: --listen: "99999" is no address with a port'),
    (["--admin", "x"], 'command line: --admin: "x" is no address'),
    (["--listen", "a'b: \"c"], "command line: --listen: "),
])
def test_a_flag_that_is_wrong_is_named_by_its_name(args, said):
    ended = run_cli("check", "--origin", "http://127.0.0.1:1", *args)
    assert ended.returncode == 1 and ended.stdout.startswith(said)


# ---- asking a running Weir -----------------------------------------------------------------------


def test_an_answer_ends_where_it_says_and_not_with_the_connection(peer):
    body = json.dumps({"text": "a\nb\n", "reloaded": True}).encode()
    plain = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" \
        b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (9, body[:9], len(body) - 9, body[9:])
    for answer in (plain, chunked):
        for size in (1, 7, 10000):
            def act(c, answer=answer, size=size):
                c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for i in range(0, len(answer), size):
                    c.sendall(answer[i:i + size])
            start = time.monotonic()
            ended = run_cli("reload", "--admin", peer(act))
            assert (ended.returncode, ended.stdout) == (0, "a\nb\nloaded again\n"), ended.stderr
            assert time.monotonic() - start < 5


@pytest.mark.parametrize("answer,said", [
    (b"", "no HTTP answer within 1 s (--timeout)"), (b"HTTP/1.1 200 OK\r\n", "no HTTP answer"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", "no complete answer within 1 s"),
    (b"SSH-2.0-x\r\n", "no complete HTTP response"),
])
def test_who_does_not_answer_holds_nobody_up(peer, answer, said):
    ended = run_cli("stats", "--timeout", "1", "--admin", peer(lambda c: c.sendall(answer)))
    assert ended.returncode == 1 and said in ended.stderr and "admin.listen" in ended.stderr


def test_a_connection_cut_short_is_no_answer(peer):
    def act(c):
        c.recv(4096)
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        c.close()
    ended = run_cli("stats", "--admin", peer(act))
    assert ended.returncode == 1 and "no complete HTTP response" in ended.stderr


def test_a_reload_is_told_as_text(weir):
    w = weir()
    ended = w.cli("reload", "--admin", w.admin_url)
    assert (ended.returncode, ended.stdout) == (0, "loaded again\n")
    with open(w.config, "a", encoding="utf-8") as f:
        f.write("cachee: 1\nworkerss: 1\n")
    ended = w.cli("reload", "--admin", w.admin_url)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 1 and len(lines) == 3 and ended.stdout == ""
    assert "did you mean cache" in lines[0] and "did you mean workers" in lines[1]
    assert lines[2] == "weir: the new configuration was refused; the old one stays in force"


# ---- the README ----------------------------------------------------------------------------------


def readme():
    path = os.path.join(os.path.dirname(harness.__file__), "..", "..", "README.md")
    with open(path, encoding="utf-8") as f:
        return f.read()


def test_the_commands_of_the_readme_that_purge_do_as_they_stand(weir):
    w = weir()
    commands = [x for x in readme().splitlines() if x.startswith("curl ")]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace("localhost:8081", w.admin_url.split("//")[1]))
        done = subprocess.run([words[0], "-sf"] + words[1:], capture_output=True, check=False)
        assert done.returncode == 0 and json.loads(done.stdout)["done"], command


def test_a_body_of_another_type_is_refused_with_the_remedy(weir):
    answer = weir().api("POST", "/purge", b'{"all": true}',
                        [("Content-Type", "application/x-www-form-urlencoded")])
    assert answer.status == 415 and "curl -H 'Content-Type: application/json'" in \
        answer.json()["detail"]


def test_the_yaml_of_the_readme_passes_check(tmp_path):
    text = readme().split("```yaml\n")[1].split("```")[0]
    ended = harness.check(text, tmp_path)
    assert ended.returncode == 0 and "0 warnings" in ended.stdout, ended.stdout


@pytest.mark.parametrize("page", ["recipes", "coming-from-nginx", "coming-from-varnish"])
def test_the_configurations_of_the_other_pages_are_whole(page, tmp_path):
    path = os.path.join(os.path.dirname(harness.__file__), "..", "..", "deploy", page + ".md")
    with open(path, encoding="utf-8") as f:
        configurations = [part.split("```")[0] for part in f.read().split("```yaml\n")[1:]]
    (tmp_path / "purge-token").write_text("token\n")
    (tmp_path / "jwks.json").write_text('{"keys": [{"kty": "oct", "k": "%s"}]}' % ("A" * 43))
    plugin = os.path.join(os.path.dirname(harness.weir_binary()), "plugins", "jwt.so")
    assert configurations
    for text in configurations:
        for was, here in ("/var/lib/weir", str(tmp_path)), ("/etc/weir", str(tmp_path)), ("name: jwt", "name: jwt\n    file: " + plugin):
            text = text.replace(was, here)
        ended = harness.check(text, tmp_path)
        assert ended.returncode == 0, text + ended.stdout


# ---- check ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "a: " + "[" * 100000, "a:\n" + " [\n" * 100000, "{a: " * 50000, "x: 1\n--- " + "[" * 100000,
    "".join(" " * i + "a:\n" for i in range(2000)),
], ids=["flow", "lines", "maps", "second", "block"])
def test_a_file_nested_without_end_is_refused_at_once(tmp_path, text):
    start = time.monotonic()
    ended = harness.check(text, tmp_path)
    assert ended.returncode == 1 and "nested too deeply; at most 32 levels" in ended.stdout
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("path,said", [
    ("/tmp", "/tmp is a directory; a file's path, as /tmp/access.log"),
    ("/nonexistent/a.log", "there is no directory /nonexistent; make it"),
    ("/etc/passwd/a.log", "there is no directory /etc/passwd"), ("/tmp/none/", "no directory"),
])
def test_an_access_log_that_cannot_be_is_refused(tmp_path, path, said):
    ended = harness.check(MINIMAL + "log: {access: %s}\n" % path, tmp_path)
    assert ended.returncode == 1 and ":2:15: log.access: " in ended.stdout and said in ended.stdout
    fine = harness.check(MINIMAL + "log: {access: %s/new.log}\n" % tmp_path, tmp_path)
    assert fine.returncode == 0 and "0 warnings" in fine.stdout


def test_an_origin_whose_name_does_not_resolve_is_told_at_start(origin, weir):
    w = weir(origins={"api": {"servers": [origin.url]},
                      "typo": {"servers": ["http://no-such-host.invalid:8000"]}},
             routes=[{"path": "/**", "origin": "api"}, {"path": "/t", "origin": "typo"}])
    harness.eventually(lambda: w.log_has("origin typo: http://no-such-host.invalid:8000: the name "
                                         "does not resolve"))
    assert "weir.yaml:" in w.log() and "; correct it" in w.log() and "origin api:" not in w.log()
    assert w.get("/").status == 404


@pytest.mark.parametrize("route,said", [
    ("{host: 'http://x'}", '"http://x" is a URL or has a path; the host alone'),
    ("{path: '/a/{id}', tags: 'x{nope}'}", "unknown placeholder {nope}; known are {id}, {host}, "),
    ("{tags: 'x{}'}", "unknown placeholder {}; known are {host}, {path.NAME}, {query.NAME}, "),
    ("{path: '/v1/{x}', rewrite: {strip: /api}}", "rewrite.strip: is in no path that"),
    ("{path: /a, rewrite: {strip: /a/b}}", "rewrite.strip: is in no path that"),
])
def test_check_names_the_remedy(tmp_path, route, said):
    assert said in harness.check(MINIMAL + "routes: [%s]\n" % route, tmp_path).stdout


@pytest.mark.parametrize("path", ["/api/{x}", "/**", "/{x}/b", "/api", "/api/v1/**"])
def test_a_prefix_that_may_be_stripped_is_not_warned_of(tmp_path, path):
    text = MINIMAL + "routes: [{path: '%s', rewrite: {strip: /api}}]\n" % path
    assert "0 warnings" in harness.check(text, tmp_path).stdout
