/*
 * debug-test: what a debugger does with hardware breakpoints and watchpoints, by ptrace.
 *
 * A child counts in a loop; the parent stops it at instructions and at accesses to its memory, and looks whether it stood
 * where it should. Prints a line `ok NAME` or `not ok NAME` for each expectation, and ends with status 1 if one fails. The
 * kernel must have CONFIG_HAVE_HW_BREAKPOINT, which comes with CONFIG_PERF_EVENTS. Deliberately absent: software
 * breakpoints.
 */
#include <elf.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TRAP_HWBKPT
#define TRAP_HWBKPT 4
#endif

/* As linux/uapi/asm/ptrace.h has it: that header cannot be included beside sys/ptrace.h. */
struct debug_state {
    uint32_t info, pad;
    struct {
        uint64_t address;
        uint32_t control, pad;
    } registers[16];
};

enum {
    /* What ID_AA64DFR0_EL1 promises. */
    SLOTS = 4,
    ENABLED = 1,
    EL0 = 2 << 1,
    LOAD = 1 << 3,
    STORE = 2 << 3,
    ROUNDS = 1000,
};

static volatile uint64_t counter, watched[4];
static int failures;

/* The child's last wait status. */
static int status;

__attribute__((noinline, noclone)) static void count(void)
{
    counter++;
    __asm__ volatile("" ::: "memory");
}

static void expect(bool is_ok, const char *name)
{
    printf("%s %s\n", is_ok ? "ok" : "not ok", name);
    failures += !is_ok;
}

/* The child: each round calls count(), reads two words and writes one. */
static _Noreturn void child(void)
{
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    for (int i = 0; i < ROUNDS; i++) {
        count();
        watched[1] = watched[0] + watched[2] + 1;
    }
    _exit(counter == ROUNDS && watched[1] == 1 ? 0 : 1);
}

/* Sets one breakpoint or watchpoint, and clears the others. */
static bool set(pid_t pid, int type, unsigned n, uint64_t address, uint32_t control)
{
    struct debug_state state = {0};
    struct iovec io = {.iov_base = &state, .iov_len = offsetof(struct debug_state, registers[SLOTS])};

    state.registers[n].address = address;
    state.registers[n].control = control;
    return ptrace(PTRACE_SETREGSET, pid, type, &io) == 0;
}

static unsigned slots(pid_t pid, int type)
{
    struct debug_state state = {0};
    struct iovec io = {.iov_base = &state, .iov_len = sizeof state};

    return ptrace(PTRACE_GETREGSET, pid, type, &io) == 0 ? state.info & 0xff : 0;
}

static uint64_t pc(pid_t pid)
{
    struct user_regs_struct registers = {0};
    struct iovec io = {.iov_base = &registers, .iov_len = sizeof registers};

    ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &io);
    return registers.pc;
}

/* Lets the child go on until it stops, and tells by what: a signal, or 0 for its end. */
static int go_on(pid_t pid, int how, siginfo_t *info)
{
    memset(info, 0, sizeof *info);
    if (ptrace(how, pid, 0, 0) != 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return 0;
    ptrace(PTRACE_GETSIGINFO, pid, 0, info);
    return WSTOPSIG(status);
}

static bool hit(pid_t pid, uint64_t address)
{
    siginfo_t info;

    return go_on(pid, PTRACE_CONT, &info) == SIGTRAP && info.si_code == TRAP_HWBKPT &&
           (uint64_t)info.si_addr == address;
}

/* Each of the slots in turn stops the child at each call, and lets it go on by a step over the breakpoint. */
static void breakpoints(pid_t pid)
{
    bool stops = true, steps = true, counts = true;
    uint64_t function = (uint64_t)(uintptr_t)count;
    siginfo_t info;

    for (unsigned n = 0; n < 8 * SLOTS; n++) {
        stops = stops && set(pid, NT_ARM_HW_BREAK, n % SLOTS, function, 0xf << 5 | EL0 | ENABLED);
        stops = stops && hit(pid, function) && pc(pid) == function;
        counts = counts && (uint64_t)ptrace(PTRACE_PEEKDATA, pid, &counter, 0) == n;
        set(pid, NT_ARM_HW_BREAK, 0, 0, 0);
        steps = steps && go_on(pid, PTRACE_SINGLESTEP, &info) == SIGTRAP && pc(pid) == function + 4;
    }
    expect(stops, "breakpoint stops before its instruction");
    expect(counts, "breakpoint stops each time");
    expect(steps, "step over a breakpoint is one instruction");
}

/* The watched word is written once a round; its neighbours are read. */
static void watchpoints(pid_t pid)
{
    bool stores = true, loads = true, bytes = true;
    siginfo_t info;

    for (unsigned n = 0; n < 8 * SLOTS; n++) {
        stores = stores && set(pid, NT_ARM_HW_WATCH, n % SLOTS, (uintptr_t)&watched[1], 0xff << 5 | STORE | EL0 | ENABLED);
        stores = stores && hit(pid, (uintptr_t)&watched[1]);
        set(pid, NT_ARM_HW_WATCH, 0, 0, 0);
        stores = stores && go_on(pid, PTRACE_SINGLESTEP, &info) == SIGTRAP;
        stores = stores && ptrace(PTRACE_PEEKDATA, pid, &watched[1], 0) == 1;
    }
    for (unsigned n = 0; n < 8 * SLOTS; n++) {
        loads = loads && set(pid, NT_ARM_HW_WATCH, n % SLOTS, (uintptr_t)&watched[2], 0xff << 5 | LOAD | EL0 | ENABLED);
        loads = loads && hit(pid, (uintptr_t)&watched[2]);
        set(pid, NT_ARM_HW_WATCH, 0, 0, 0);
        go_on(pid, PTRACE_SINGLESTEP, &info);
    }
    bytes = set(pid, NT_ARM_HW_WATCH, 1, (uintptr_t)&watched[1], 0x10 << 5 | STORE | EL0 | ENABLED) &&
            hit(pid, (uintptr_t)&watched[1] + 4);
    set(pid, NT_ARM_HW_WATCH, 0, 0, 0);
    expect(stores, "watchpoint stops at each store to its word, and not at loads beside it");
    expect(loads, "watchpoint stops at each load of its word, and not at stores beside it");
    expect(bytes, "watchpoint of one byte tells its address");
}

int main(void)
{
    siginfo_t info;
    pid_t pid = fork();

    if (pid == 0)
        child();
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return 1;
    expect(slots(pid, NT_ARM_HW_BREAK) == SLOTS, "four breakpoints");
    expect(slots(pid, NT_ARM_HW_WATCH) == SLOTS, "four watchpoints");
    breakpoints(pid);
    watchpoints(pid);
    /* Watched to its end, but not where it reads or writes. */
    expect(set(pid, NT_ARM_HW_WATCH, 0, (uintptr_t)&watched[3], 0xff << 5 | LOAD | STORE | EL0 | ENABLED) &&
               go_on(pid, PTRACE_CONT, &info) == 0,
           "word beside those that are used never stops");
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child's sums are right");
    return failures != 0;
}
