//! Measures the memory that a piece of work takes, in bytes that Rust's allocator hands out.
//!
//! The whole test binary runs on an allocator that counts ([`peak_alloc`]). Other tests allocate in the same process at
//! the same time, so a test measures in a process of its own. [`alone`] runs the test again in a process that runs
//! nothing else, and passes it a *case*. In that process, [`case`] returns the case, [`peak_during`] measures, and
//! [`tell`] passes the figures back. So neither other tests nor a busy machine changes the figures. What C code
//! allocates is not counted, such as the page cache of SQLite, which has a limit of its own.
//!
//! ```ignore
//! const TEST: &str = "audit::size::a_big_customer_takes_no_more_memory";
//!
//! #[tokio::test]
//! async fn a_big_customer_takes_no_more_memory() {
//!     let Some(case) = alloc::case() else {
//!         let [small] = alloc::alone(TEST, "1000");
//!         let [big] = alloc::alone(TEST, "8000");
//!         assert!(big * 10 <= small * 13, "{small} bytes, and {big} for eight times as much");
//!         return;
//!     };
//!     let shop = prepare(case.parse().unwrap()).await;
//!     let (_, peak) = alloc::peak_during(work(&shop)).await;
//!     alloc::tell(&[peak]);
//! }
//! ```

use std::io::Write as _;
use std::process::Command;

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The environment variable with the case. It is set in the process that measures.
const CASE: &str = "WINDFALL_TEST_CASE";
/// The text before the figures in the output of that process.
const FIGURES: &str = "figures:";

/// The case to measure. `None` if this process does not measure.
pub(crate) fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// Runs one test of this binary, given by its full name, with this case in a process of its own. Returns its figures.
#[track_caller]
pub(crate) fn alone<const N: usize>(test: &str, case: &str) -> [u64; N] {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let output = command.args(["--exact", test, "--nocapture"]).env(CASE, case).output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| Some(line.split_once(FIGURES)?.1));
    let line = line.unwrap_or_else(|| panic!("{test}, {case}:\n{text}{}", String::from_utf8_lossy(&output.stderr)));
    let figures: Vec<u64> = line.split_whitespace().map(|figure| figure.parse().expect("a number")).collect();
    assert!(output.status.success(), "{test}, {case}:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    figures.try_into().unwrap_or_else(|figures| panic!("{test}, {case}: {N} figures expected, not {figures:?}"))
}

/// Passes the figures to the process that called [`alone`].
pub(crate) fn tell(figures: &[u64]) {
    let figures: Vec<String> = figures.iter().map(u64::to_string).collect();
    writeln!(std::io::stdout(), "{FIGURES} {}", figures.join(" ")).expect("an output");
}

/// Does the work. Returns its result, and the most bytes that all threads of the process had allocated meanwhile in
/// addition to those before.
pub(crate) async fn peak_during<T>(work: impl Future<Output = T>) -> (T, u64) {
    assert!(case().is_some(), "this would count other tests of this process too; use `alone`");
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let done = work.await;
    let more = ALLOCATOR.peak_usage().saturating_sub(before);
    (done, u64::try_from(more).expect("a number of bytes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peak_is_of_all_threads_and_of_this_work_alone() {
    const TEST: &str = "support::alloc::the_peak_is_of_all_threads_and_of_this_work_alone";
    const MIB: u64 = 1 << 20;
    let Some(case) = case() else {
        let [peak] = alone(TEST, "3");
        assert!((3 * MIB..4 * MIB).contains(&peak), "{peak}");
        return;
    };
    let mebibytes: usize = case.parse().expect("a number");
    let before = vec![1_u8; 8 << 20];
    // The two allocations never exist at the same time.
    let ((), peak) = peak_during(async {
        for _ in 0..2 {
            let task = tokio::spawn(async move { std::hint::black_box(vec![1_u8; mebibytes << 20]).len() });
            task.await.expect("a task that ends");
        }
    })
    .await;
    assert_eq!(before.len(), 8 << 20);
    tell(&[peak]);
}
