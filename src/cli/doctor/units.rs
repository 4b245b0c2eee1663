//! Figures with units, as people write them.

use std::time::Duration;

/// Displays a number of bytes, such as `1.5 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    let whole = bytes >> (10 * unit);
    let tenths = if unit == 0 { 0 } else { ((bytes >> (10 * (unit - 1))) % 1024) * 10 / 1024 };
    let fraction = if tenths == 0 || whole >= 10 { String::new() } else { format!(".{tenths}") };
    format!("{whole}{fraction} {}", UNITS[unit as usize])
}

/// Displays a duration in its largest unit, such as `41 min`. Up to two of a unit are shown in the next smaller one.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=120 => format!("{seconds} s"),
        121..=7_200 => format!("{} min", seconds / 60),
        7_201..=172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Displays a number with a noun, such as `1 node` and `2 nodes`.
pub(super) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_units() {
        let shown = [0, 1_023, 1_024, 1_536, 64 << 20, (10 << 30) + (1 << 29), 3 << 40].map(bytes);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "64 MiB", "10 GiB", "3 TiB"]);
        let shown =
            [0, 1, 120, 121, 2_460, 7_201, 172_800, 172_801].map(|seconds| duration(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 ms", "1 s", "120 s", "2 min", "41 min", "2 h", "48 h", "2 d"]);
        assert_eq!([count(1, "node"), count(0, "node")], ["1 node", "0 nodes"]);
    }
}
