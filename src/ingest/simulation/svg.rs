//! Draws the lag over time of each setting.

use std::fmt::Write as _;

use super::figures::Figures;
use super::report::Span;
use super::seconds;

/// The size of the drawing without its legend, and the place of the plot in it.
const WIDTH: f64 = 960.0;
const PLOT_HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BELOW: f64 = 50.0;
/// The height of a line of the legend.
const LINE_HEIGHT: f64 = 20.0;
/// Colours that people with any kind of colour vision can tell apart (Okabe and Ito), without yellow.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];
/// Lines of further settings are dashed.
const DASHES: [&str; 5] = ["none", "8 4", "2 3", "12 4 2 4", "16 6"];
/// The least lag that is told apart, in seconds. The axis of the lag is logarithmic.
const LEAST: f64 = 0.001;

/// Returns the drawing.
pub fn draw(title: &str, figures: &[Figures]) -> String {
    let axes = Axes::of(figures);
    let height = TOP + PLOT_HEIGHT + BELOW + LINE_HEIGHT * count(figures.len()) + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    axes.draw(&mut svg);
    for (index, figures) in figures.iter().enumerate() {
        draw_setting(&mut svg, &axes, index, figures);
    }
    svg + "</svg>\n"
}

/// How times and lags become places.
struct Axes {
    /// The end of the time, in seconds.
    end: f64,
    /// The decades of the lag, from [`LEAST`].
    decades: u32,
}

impl Axes {
    fn of(figures: &[Figures]) -> Self {
        let points = || figures.iter().flat_map(|figures| &figures.lags);
        let end = points().map(|(at, _)| seconds(*at)).fold(1.0, f64::max);
        let largest = points().map(|(_, lag)| seconds(*lag)).fold(LEAST * 10.0, f64::max);
        let decades = (1..=12).find(|decades| LEAST * 10_f64.powi(*decades) >= largest).unwrap_or(12);
        Self { end, decades: decades.unsigned_abs() }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + at / self.end * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, lag: f64) -> f64 {
        let decades = (lag.max(LEAST) / LEAST).log10();
        TOP + PLOT_HEIGHT * (1.0 - decades / f64::from(self.decades))
    }

    fn draw(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, TOP + PLOT_HEIGHT);
        for decade in 0..=self.decades {
            let lag = LEAST * 10_f64.powi(decade.cast_signed());
            let y = self.y(lag);
            line(svg, (LEFT, y), (right, y), "#dddddd");
            text(svg, (LEFT - 6.0, y + 4.0), "end", &Span(super::micros(lag)).to_string());
        }
        let step = step(self.end);
        let mut at = 0.0;
        while at <= self.end {
            let x = self.x(at);
            line(svg, (x, bottom), (x, bottom + 5.0), "#333333");
            text(svg, (x, bottom + 19.0), "middle", &format!("{at}"));
            at += step;
        }
        line(svg, (LEFT, bottom), (right, bottom), "#333333");
        line(svg, (LEFT, TOP), (LEFT, bottom), "#333333");
        text(
            svg,
            (f64::midpoint(LEFT, right), bottom + 38.0),
            "middle",
            "arrival of the message (seconds since the beginning)",
        );
        let middle = TOP + PLOT_HEIGHT / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"16\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {middle})\">lag until it is recorded</text>"
        );
    }
}

/// Returns the distance of marks, of which there are about ten: 1, 2 or 5 times a power of ten.
fn step(end: f64) -> f64 {
    let power = 10_f64.powf((end / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| end / step <= 10.0).unwrap_or(end).max(1.0)
}

fn draw_setting(svg: &mut String, axes: &Axes, index: usize, figures: &Figures) {
    let (colour, dash) = (COLOURS[index % COLOURS.len()], DASHES[index / COLOURS.len() % DASHES.len()]);
    let points: Vec<String> = figures
        .lags
        .iter()
        .map(|(at, lag)| format!("{:.1},{:.1}", axes.x(seconds(*at)), axes.y(seconds(*lag))))
        .collect();
    let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-dasharray=\"{dash}\"");
    let y = TOP + PLOT_HEIGHT + BELOW + LINE_HEIGHT * (count(index) + 0.5);
    let unstable = if figures.is_unstable() { ", unstable" } else { "" };
    let told = format!("{}: p50 {}, p99 {}{unstable}", figures.setting, Span(figures.p50), Span(figures.p99));
    // A text cannot fail to be written.
    let _ = writeln!(svg, "<polyline points=\"{}\" {style}/>", points.join(" "));
    let _ = writeln!(svg, "<polyline points=\"{LEFT},{y} {},{y}\" {style}/>", LEFT + 30.0);
    text(svg, (LEFT + 38.0, y + 4.0), "start", &told);
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    let _ = writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\"/>");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::cast_precision_loss, reason = "a few settings")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::simulation::report::tests::figures;

    /// Checks that each element is closed, attributes are quoted, and no mark stands in a text. Returns the names of the elements.
    fn elements(svg: &str) -> Vec<String> {
        let (mut open, mut names) = (Vec::new(), Vec::new());
        for part in svg.split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect("the end of a tag");
            assert!(!text.contains('>') && text.split('&').skip(1).all(|it| it.split_once(';').is_some()), "{text}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap().to_owned();
            let attributes: Vec<&str> = tag.strip_suffix('/').unwrap_or(tag).split('"').collect();
            assert_eq!(attributes.len() % 2, 1, "quotes: {tag}");
            assert!(attributes.iter().step_by(2).take(attributes.len() / 2).all(|it| it.ends_with('=')), "{tag}");
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            names.push(name);
        }
        assert!(open.is_empty(), "{open:?}");
        names
    }

    #[test]
    fn the_drawing_is_xml_with_each_setting() {
        let settings: Vec<Figures> = (1..=32).map(|partitions| figures(partitions, 1, 90_000_000)).collect();
        let svg = draw("a \"sale\" & <more>", &settings);
        let names = elements(&svg);
        assert_eq!(
            names.iter().filter(|name| *name == "polyline").count(),
            64,
            "a line of each, and one in the legend"
        );
        for figures in &settings {
            assert!(svg.contains(&format!("{}: p50 2 ms, p99 90 s", figures.setting)), "{}", figures.setting);
        }
        for text in
            ["a &quot;sale&quot; &amp; &lt;more&gt;", ">100 s<", ">1 ms<", "lag until it is recorded", "seconds since"]
        {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn places_follow_time_and_lag() {
        let axes = Axes::of(&[figures(1, 1, 90_000_000)]);
        assert_eq!((axes.end, axes.decades), (5.0, 5));
        assert_eq!((axes.x(0.0), axes.x(5.0)), (LEFT, WIDTH - RIGHT));
        assert_eq!((axes.y(0.0), axes.y(100.0)), (TOP + PLOT_HEIGHT, TOP));
        assert_eq!([5.0, 30.0, 100.0, 7_200.0].map(step), [1.0, 5.0, 10.0, 1_000.0]);
    }
}
