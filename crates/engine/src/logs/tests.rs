//! Writing and reading together.

use super::*;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn all() -> LogOptions {
    LogOptions { stdout: true, stderr: true, ..LogOptions::default() }
}

fn log(limits: Limits) -> (tempfile::TempDir, Arc<LogFile>) {
    let dir = tempfile::tempdir().unwrap();
    let log = LogFile::new(dir.path().join("log"), limits, false, types::Labels::new());
    (dir, Arc::new(log))
}

fn append(log: &LogFile, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let bytes = Bytes::from(format!("{number}\n"));
        log.append(&[LogEntry { stderr: number % 2 == 1, time: Timestamp(number), bytes }]);
    }
}

fn follow(log: &Arc<LogFile>, options: LogOptions) -> LogStream {
    let (sink, lines) = tokio::sync::mpsc::channel(4);
    tokio_util::task::TaskTracker::new().spawn(read(Arc::clone(log), options, sink));
    ReceiverStream::new(lines)
}

async fn next(stream: &mut LogStream) -> Option<i64> {
    let entry = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
    entry.map(|entry| entry.unwrap().time.0)
}

async fn collect(log: &Arc<LogFile>, options: LogOptions) -> Vec<i64> {
    let mut stream = follow(log, options);
    let mut numbers = Vec::new();
    while let Some(number) = next(&mut stream).await {
        numbers.push(number);
    }
    numbers
}

#[tokio::test]
async fn lines_are_chosen_by_tail_time_and_stream() {
    let (_dir, log) = log(Limits { size: 1 << 20, files: 3 });
    append(&log, 0..10);
    assert_eq!(collect(&log, all()).await, (0..10).collect::<Vec<_>>());
    assert_eq!(collect(&log, LogOptions { tail: Some(2), ..all() }).await, [8, 9]);
    assert!(collect(&log, LogOptions { tail: Some(0), ..all() }).await.is_empty());
    let between = LogOptions { since: Some(Timestamp(3)), until: Some(Timestamp(5)), ..all() };
    assert_eq!(collect(&log, between).await, [3, 4, 5]);
    assert_eq!(collect(&log, LogOptions { stdout: false, ..all() }).await, [1, 3, 5, 7, 9]);
}

#[tokio::test]
async fn a_reader_follows_over_rotations_and_ends_with_the_container() {
    let (dir, log) = log(Limits { size: 200, files: 3 });
    let mut stream = follow(&log, LogOptions { follow: true, tail: Some(1), ..all() });
    append(&log, 0..1);
    assert_eq!(next(&mut stream).await, Some(0));
    for number in 1..40 {
        append(&log, number..number + 1);
        assert_eq!(next(&mut stream).await, Some(number));
    }
    log.close();
    assert_eq!(next(&mut stream).await, None);
    assert!(dir.path().join("log.2").exists() && !dir.path().join("log.3").exists());
    // Older lines have gone with their file; the order holds over the three that are left.
    let left = collect(&log, all()).await;
    assert_eq!(left.last(), Some(&39));
    assert!(left.len() < 40 && left.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{left:?}");
}

#[tokio::test]
async fn half_a_line_of_a_daemon_that_died_is_skipped() {
    let (dir, log) = log(Limits { size: 1 << 20, files: 1 });
    append(&log, 0..1);
    log.close();
    let path = dir.path().join("log");
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"log\":\"ha");
    std::fs::write(&path, text).unwrap();
    log.reopen();
    append(&log, 1..2);
    assert_eq!(collect(&log, all()).await, [0, 1]);
}

#[tokio::test]
async fn a_disk_that_is_full_does_not_hold_the_writer_up() {
    let limits = Limits { size: 1 << 20, files: 1 };
    let log = Arc::new(LogFile::new("/dev/full".into(), limits, false, types::Labels::new()));
    append(&log, 0..3);
    log.close();
}

/// Appends output as the pump does, in pieces.
fn write(log: &LogFile, output: &[u8], stderr: bool, time: i64) {
    log.append(&stamp(Lines::default().feed(output), stderr, Timestamp(time)));
}

#[tokio::test]
async fn a_long_line_is_one_entry_with_the_time_of_its_beginning() {
    let (_dir, log) = log(Limits { size: 20_000, files: 9 });
    write(&log, &[b'x'; 16 << 10], false, 1);
    write(&log, b"between\n", true, 2);
    write(&log, &[b'x'; 16 << 10], false, 3);
    let mut stream = follow(&log, LogOptions { follow: true, ..all() });
    assert_eq!(next(&mut stream).await, Some(2));
    write(&log, b"END\n", false, 4);
    let entry = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((entry.time.0, entry.stderr, entry.bytes.len()), (1, false, (32 << 10) + 4));
    // It counts as one line.
    assert_eq!(collect(&log, LogOptions { tail: Some(1), ..all() }).await, [1]);
}

#[tokio::test]
async fn a_line_that_does_not_end_is_shown_in_bounded_parts_and_to_its_last_byte() {
    let (_dir, log) = log(Limits { size: 1 << 20, files: 9 });
    for time in 0..40 {
        write(&log, &[b'x'; 16 << 10], false, time);
    }
    log.close();
    let entries: Vec<LogEntry> = follow(&log, all()).map(Result::unwrap).collect().await;
    assert_eq!(entries.iter().map(|entry| entry.bytes.len()).sum::<usize>(), 40 * (16 << 10));
    assert_eq!(entries.iter().map(|entry| entry.time.0).collect::<Vec<_>>(), [0, 16, 32]);
}
