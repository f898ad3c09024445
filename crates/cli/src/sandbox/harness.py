def main():
    import os
    import resource
    import sys

    token, _, program = sys.stdin.buffer.read().partition(b"\n")
    # The program may put others in the place of these.
    write, leave, base, name, text, walk, failure = os.write, os._exit, BaseException, type, str, getattr, Exception
    kinds = ((AssertionError, "assertion"), (MemoryError, "memory"), (SystemExit, "exit"))
    is_a, join = isinstance, " ".join
    report = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    verdict, error = "passed", None
    try:
        code = compile(program.decode(), "<program>", "exec")
    except base as e:
        verdict, error = "syntax", e
    else:
        try:
            exec(code, {})
        except base as e:
            verdict, error = next((k for t, k in kinds if is_a(e, t)), "exception"), e
    detail = ""
    if error is not None:
        line, frame = walk(error, "lineno", None) if verdict == "syntax" else None, error.__traceback__
        while frame is not None:
            if frame.tb_frame.f_code.co_filename == "<program>":
                line = frame.tb_lineno
            frame = frame.tb_next
        detail = name(error).__name__
        try:
            message = text(walk(error, "msg", error) if verdict == "syntax" else error)
            detail += message and ": " + message
        except base:
            pass
        detail = join(detail.split())[:200]
        if line is not None:
            detail += f" (line {line})"
    write(report, token + f" {verdict} {detail}\n".encode("ascii", "backslashreplace"))
    leave(0)


main()
