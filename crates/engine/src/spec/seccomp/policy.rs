//! Docker's default policy as data: what is allowed, and when.
//!
//! Everything else is refused with EPERM: what gives a container more of the kernel than an ordinary
//! program needs (namespaces, mounts, modules, keys, the clock, BPF, io_uring, the kernel's
//! cryptography and virtual machines' sockets), also to root in the container.

use super::profile::{Argument, Filter, Profile, Rule};

/// When the calls of a group are allowed.
enum When {
    Always,
    /// From this kernel on.
    Kernel(&'static str),
    /// On these architectures, by Go's names.
    On(&'static [&'static str]),
    /// To those who have this capability.
    With(&'static str),
}

use When::{Always, Kernel, On, With};

/// Calls that are allowed whatever their arguments are.
const GROUPS: &[(When, &str)] = &[
    (
        Always,
        "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod \
            chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
            clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close \
            close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
            epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
            eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 \
            fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
            fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat \
            fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue \
            futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list \
            get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid \
            geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid \
            getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid \
            getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday \
            getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
            inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
            io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill \
            landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 \
            lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek \
            lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier \
            memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall \
            mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
            mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal \
            msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at \
            nanosleep newfstatat _newselect open openat openat2 pause pidfd_open \
            pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll \
            ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 \
            pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
            recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
            removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq \
            rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
            rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
            sched_get_priority_min sched_getaffinity sched_getattr sched_getparam \
            sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 \
            sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
            seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile \
            sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address \
            setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
            setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid \
            setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr \
            setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 \
            sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 \
            statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill \
            time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 \
            timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
            timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask \
            uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork \
            vmsplice wait4 waitid waitpid write writev",
    ),
    (Kernel("4.8"), "process_vm_readv process_vm_writev ptrace"),
    (On(&["ppc64le"]), "sync_file_range2 swapcontext"),
    (
        On(&["arm", "arm64"]),
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    ),
    (On(&["amd64", "x32"]), "arch_prctl"),
    (On(&["amd64", "x32", "x86"]), "modify_ldt"),
    (On(&["s390", "s390x"]), "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (On(&["riscv64"]), "riscv_flush_icache"),
    (With("CAP_DAC_READ_SEARCH"), "open_by_handle_at"),
    (
        With("CAP_SYS_ADMIN"),
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
            lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
            open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
            umount umount2 unshare",
    ),
    (With("CAP_SYS_BOOT"), "reboot"),
    (With("CAP_SYS_CHROOT"), "chroot"),
    (With("CAP_SYS_MODULE"), "delete_module init_module finit_module"),
    (With("CAP_SYS_PACCT"), "acct"),
    (
        With("CAP_SYS_PTRACE"),
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (With("CAP_SYS_RAWIO"), "iopl ioperm"),
    (With("CAP_SYS_TIME"), "settimeofday stime clock_settime clock_settime64"),
    (With("CAP_SYS_TTY_CONFIG"), "vhangup"),
    (With("CAP_SYS_NICE"), "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (With("CAP_SYSLOG"), "syslog"),
    (With("CAP_BPF"), "bpf"),
    (With("CAP_PERFMON"), "perf_event_open"),
];

/// socket(2): the kernel's cryptography is one socket away from every program's memory, and virtual
/// machines' sockets know no network namespaces.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// personality(2): Linux, Linux as on 32 bits, both without random addresses, and the question.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// clone(2): any of NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

const EPERM: u32 = 1;
/// For clone3(2), whose arguments cannot be looked at: programs then use clone(2).
const ENOSYS: u32 = 38;

/// The policy.
pub(super) fn default() -> Profile {
    let mut rules: Vec<Rule> = GROUPS.iter().map(|(when, calls)| group(when, calls)).collect();
    // runc takes several conditions on one argument for alternatives, so each is a rule.
    rules.push(when("socket", 0, "SCMP_CMP_LT", AF_ALG));
    rules.push(when("socket", 0, "SCMP_CMP_EQ", AF_ALG + 1));
    rules.push(when("socket", 0, "SCMP_CMP_GT", AF_VSOCK));
    rules.extend(PERSONALITIES.map(|value| when("personality", 0, "SCMP_CMP_EQ", value)));
    rules.extend(clone());
    Profile {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        default_errno_ret: Some(EPERM),
        arch_map: Profile::architectures(),
        syscalls: rules,
        ..Profile::default()
    }
}

fn group(when: &When, calls: &str) -> Rule {
    let one = |text: &str| vec![text.to_owned()];
    let includes = match when {
        Always => Filter::default(),
        Kernel(version) => Filter { min_kernel: (*version).to_owned(), ..Filter::default() },
        On(arches) => Filter {
            arches: arches.iter().map(|arch| (*arch).to_owned()).collect(),
            ..Filter::default()
        },
        With(capability) => Filter { caps: one(capability), ..Filter::default() },
    };
    let names = calls.split_whitespace().map(str::to_owned).collect();
    Rule { names, action: "SCMP_ACT_ALLOW".to_owned(), includes, ..Rule::default() }
}

/// A call that is allowed for some values of an argument.
fn when(call: &str, index: u32, op: &str, value: u64) -> Rule {
    let argument = Argument { index, op: op.to_owned(), value, value_two: 0 };
    Rule { args: vec![argument], ..group(&Always, call) }
}

/// New threads and processes, but no new namespaces, for those without CAP_SYS_ADMIN.
fn clone() -> [Rule; 3] {
    let strangers = || Filter { caps: vec!["CAP_SYS_ADMIN".to_owned()], ..Filter::default() };
    let s390 = || ["s390", "s390x"].map(str::to_owned).to_vec();
    let flags = |index| Rule {
        excludes: strangers(),
        // "Masked equal": the bits of `value` must be those of `value_two`.
        ..when("clone", index, "SCMP_CMP_MASKED_EQ", NEW_NAMESPACES)
    };
    let (mut usual, mut other) = (flags(0), flags(1));
    usual.excludes.arches = s390();
    // There, the flags come second.
    other.includes.arches = s390();
    let newer = Rule {
        names: vec!["clone3".to_owned()],
        action: "SCMP_ACT_ERRNO".to_owned(),
        errno_ret: Some(ENOSYS),
        excludes: strangers(),
        ..Rule::default()
    };
    [usual, other, newer]
}
