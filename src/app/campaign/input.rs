//! Campaigns as clients send them, by GraphQL or in a file. Checks an input and converts it to a rule, and converts a campaign
//! back to an input.

use serde::{Deserialize, Serialize};

use crate::app::campaign::set::Campaign;
use crate::app::error::{Check, Error, UserErrorCode};
use crate::engine::account::MAX_EXACT;
use crate::engine::award::{AwardRule, CategoryRate, CategoryRates, MAX_RATES, RATE_DECIMALS, Rate};
use crate::engine::goal::{DistinctOf, Goal};
use crate::engine::money::{Currency, MoneyError, scaled};
use crate::engine::rule::{FaultReason, Filter, Period, Rule, faults};
use crate::engine::time::{Instant, IsoDuration, LocalTime, parse_instant};
use crate::engine::window::{Calendar, CalendarUnit, Recurring, Weekday, WindowRule};
use crate::engine::zone::Zone;

/// The maximum number of entries in a list of a filter.
pub const MAX_FILTER_ENTRIES: usize = 500;
const DEFAULT_LATENESS: &str = "P30D";

/// A campaign as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CampaignInput {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    pub starts_at: String,
    #[serde(default)]
    pub ends_at: Option<String>,
    #[serde(default = "utc")]
    pub time_zone: String,
    pub currency: String,
    #[serde(default)]
    pub filter: Option<FilterInput>,
    pub window: WindowInput,
    pub goal: GoalInput,
    pub award: AwardInput,
    #[serde(default)]
    pub max_per_customer: Option<i32>,
    #[serde(default)]
    pub max_per_window: Option<i32>,
    // What earlier releases did not know is left out if it is not given, so that requests from before are recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_points_per_customer: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_points_per_window: Option<i64>,
    #[serde(default)]
    pub budget: Option<i64>,
    #[serde(default = "default_lateness")]
    pub lateness: String,
    #[serde(default)]
    pub hold_for: Option<String>,
    #[serde(default)]
    pub expires_after: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn default_lateness() -> String {
    DEFAULT_LATENESS.to_owned()
}

/// A filter as the client sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FilterInput {
    pub min_amount: Option<String>,
    pub channels: Option<Vec<String>>,
    pub categories: Option<Vec<String>>,
    pub skus: Option<Vec<String>>,
    // What earlier releases did not know is left out if it is not given, so that requests from before are recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excluded_categories: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excluded_skus: Option<Vec<String>>,
}

/// A window as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum WindowInput {
    Campaign(WholeCampaign),
    Calendar {
        unit: CalendarUnit,
        #[serde(default = "one")]
        every: i32,
        #[serde(default = "monday")]
        week_starts_on: Weekday,
        #[serde(default = "midnight", skip_serializing_if = "is_midnight")]
        day_starts_at: String,
    },
    Recurring {
        weekdays: Vec<Weekday>,
        from: String,
        to: String,
    },
    Session {
        gap: String,
    },
    Timer {
        duration: String,
        #[serde(default)]
        reopens: bool,
    },
    Rolling {
        duration: String,
    },
}

fn one() -> i32 {
    1
}

fn monday() -> Weekday {
    Weekday::Monday
}

fn midnight() -> String {
    LocalTime::default().to_string()
}

fn is_midnight(time: &String) -> bool {
    *time == midnight()
}

/// The only value of the window `campaign`, which has no fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WholeCampaign {
    Whole,
}

/// A goal as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum GoalInput {
    EveryPurchase(EveryPurchase),
    Purchases {
        at_least: i32,
        #[serde(default)]
        repeat: bool,
    },
    Spend {
        amount: String,
        #[serde(default)]
        repeat: bool,
    },
    Units {
        at_least: i32,
        #[serde(default)]
        repeat: bool,
    },
    Distinct {
        of: DistinctOf,
        at_least: i32,
    },
    Streak {
        length: i32,
        #[serde(default = "one")]
        purchases_per_window: i32,
        #[serde(default)]
        repeat: bool,
    },
}

/// The only value of the goal `everyPurchase`, which has no fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EveryPurchase {
    Each,
}

/// An award as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AwardInput {
    Points(i64),
    PointsPerUnit(String),
    PointsByCategory(CategoryRatesInput),
}

/// Rates for categories as the client sent them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryRatesInput {
    pub rate: String,
    pub rates: Vec<CategoryRateInput>,
}

/// The rate of some categories as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryRateInput {
    pub categories: Vec<String>,
    pub rate: String,
}

/// An edit of a campaign. `None` keeps a field, `Some(None)` removes its value, `Some(Some(…))` sets it.
#[derive(Clone, Debug, Default)]
pub struct CampaignUpdate {
    pub if_revision: i64,
    pub name: Option<Option<String>>,
    pub description: Option<Option<String>>,
    pub starts_at: Option<Option<String>>,
    pub ends_at: Option<Option<String>>,
    pub time_zone: Option<Option<String>>,
    pub currency: Option<Option<String>>,
    pub filter: Option<Option<FilterInput>>,
    pub window: Option<Option<WindowInput>>,
    pub goal: Option<Option<GoalInput>>,
    pub award: Option<Option<AwardInput>>,
    pub max_per_customer: Option<Option<i32>>,
    pub max_per_window: Option<Option<i32>>,
    pub max_points_per_customer: Option<Option<i64>>,
    pub max_points_per_window: Option<Option<i64>>,
    pub budget: Option<Option<i64>>,
    pub lateness: Option<Option<String>>,
    pub hold_for: Option<Option<String>>,
    pub expires_after: Option<Option<String>>,
}

/// A campaign that was checked and can be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub name: String,
    pub description: Option<String>,
    pub starts_at: Instant,
    pub ends_at: Option<Instant>,
    pub rule: Rule,
    pub budget: Option<i64>,
}

impl Checked {
    /// Returns the parsed content as text. A replay of the creation must have the same text.
    pub(super) fn request(&self) -> Result<String, Error> {
        let Self { name, description, starts_at, ends_at, rule, budget } = self;
        serde_json::to_string(&("createCampaign", name, description, starts_at, ends_at, rule, budget))
            .map_err(|error| Error::Internal(error.to_string()))
    }
}

impl CampaignInput {
    /// Checks the input. `path` is the path of the input; the paths of errors begin with it.
    pub fn check(self, path: &[String]) -> Result<Checked, Error> {
        self.check_with_end(path, true)
    }

    /// Like [`Self::check`]. With `ordered`, `endsAt` must be after `startsAt`.
    pub(super) fn check_with_end(self, path: &[String], ordered: bool) -> Result<Checked, Error> {
        let mut check = Check::at(path);
        check.text(&["name"], &self.name);
        if let Some(description) = &self.description {
            check.text(&["description"], description);
        }
        if self.budget.is_some_and(|budget| !(0..=MAX_EXACT).contains(&budget)) {
            check.fail(&["budget"], UserErrorCode::OutOfRange, "must be 0 to 2^53 − 1 points, or null for no budget");
        }
        let starts_at = check.instant(&["startsAt"], &self.starts_at);
        let ends_at = self.ends_at.as_deref().map(|text| check.instant(&["endsAt"], text));
        let currency = check.currency(&["currency"], &self.currency);
        let time_zone = check.parsed(&["timeZone"], Zone::parse(&self.time_zone), |_| UserErrorCode::Invalid);
        let filter = check_filter(&mut check, self.filter.unwrap_or_default(), currency);
        let window = check_window(&mut check, self.window);
        let goal = check_goal(&mut check, self.goal, currency);
        let award = check_award(&mut check, self.award);
        let lateness = check.span(&["lateness"], &self.lateness);
        let hold_for = self.hold_for.as_deref().map(|text| check.span(&["holdFor"], text));
        let expires_after = self.expires_after.as_deref().map(|text| check.span(&["expiresAfter"], text));
        if !check.is_clean() {
            return check.finish(None);
        }
        let rule = (|| {
            Some(Rule {
                time_zone: time_zone?,
                currency: currency?,
                filter,
                window: window?,
                goal: goal?,
                award: award?,
                max_per_customer: self.max_per_customer,
                max_per_window: self.max_per_window,
                max_points_per_customer: self.max_points_per_customer,
                max_points_per_window: self.max_points_per_window,
                lateness: lateness?,
                hold_for: hold_for.flatten(),
                expires_after: expires_after.flatten(),
            })
        })();
        let Some((rule, starts_at)) = rule.zip(starts_at) else {
            return check.finish(None);
        };
        let ends_at = ends_at.flatten();
        let period = Period { starts_at, ends_at: ends_at.filter(|_| ordered), pauses: Vec::new() };
        for fault in faults(&rule, &period) {
            match fault.reason {
                FaultReason::OutOfRange(allowed) => check.fail(fault.path, UserErrorCode::OutOfRange, allowed),
                FaultReason::Unsupported(why) => check.fail(fault.path, UserErrorCode::UnsupportedCombination, why),
            }
        }
        let (name, description, budget) = (self.name, self.description, self.budget);
        check.finish(Some(Checked { name, description, starts_at, ends_at, rule, budget }))
    }

    /// Returns the input that would create this campaign.
    pub fn of(campaign: &Campaign) -> Self {
        let rule = &campaign.rule;
        let money = |minor: i64| rule.currency.format(i128::from(minor));
        let filter = &rule.filter;
        Self {
            name: campaign.row.name.clone(),
            description: campaign.row.description.clone(),
            starts_at: campaign.life.period.starts_at.to_string(),
            ends_at: campaign.life.period.ends_at.map(|end| end.to_string()),
            time_zone: rule.time_zone.name().to_owned(),
            currency: rule.currency.to_string(),
            filter: (*filter != Filter::default()).then(|| FilterInput {
                min_amount: filter.min_amount.map(money),
                channels: filter.channels.clone(),
                categories: filter.categories.clone(),
                skus: filter.skus.clone(),
                excluded_categories: filter.excluded_categories.clone(),
                excluded_skus: filter.excluded_skus.clone(),
            }),
            window: window_input(&rule.window),
            goal: goal_input(&rule.goal, rule.currency),
            award: match &rule.award {
                AwardRule::Points(points) => AwardInput::Points(*points),
                AwardRule::PointsPerUnit(rate) => AwardInput::PointsPerUnit(rate.format()),
                AwardRule::PointsByCategory(CategoryRates { rate, rates }) => {
                    let of = |CategoryRate { categories, rate }: &CategoryRate| CategoryRateInput {
                        categories: categories.clone(),
                        rate: rate.format(),
                    };
                    let rates = rates.iter().map(of).collect();
                    AwardInput::PointsByCategory(CategoryRatesInput { rate: rate.format(), rates })
                }
            },
            max_per_customer: rule.max_per_customer,
            max_per_window: rule.max_per_window,
            max_points_per_customer: rule.max_points_per_customer,
            max_points_per_window: rule.max_points_per_window,
            budget: campaign.budget_limit,
            lateness: rule.lateness.as_str().to_owned(),
            hold_for: rule.hold_for.as_ref().map(|span| span.as_str().to_owned()),
            expires_after: rule.expires_after.as_ref().map(|span| span.as_str().to_owned()),
        }
    }

    /// Returns the fields that are fixed once a campaign is activated and that differ. Compares parsed values, so that "20"
    /// equals "20.00".
    pub(super) fn frozen_differences(&self, after: &Self) -> Vec<&'static str> {
        let parsed = |input: &Self| input.clone().check_with_end(&[], false).ok();
        let (Some(a), Some(b)) = (parsed(self), parsed(after)) else { return Vec::new() };
        let differs = [
            ("startsAt", a.starts_at != b.starts_at),
            ("timeZone", a.rule.time_zone != b.rule.time_zone),
            ("currency", a.rule.currency != b.rule.currency),
            ("filter", a.rule.filter != b.rule.filter),
            ("window", a.rule.window != b.rule.window),
            ("goal", a.rule.goal != b.rule.goal),
            ("award", a.rule.award != b.rule.award),
            ("maxPerCustomer", a.rule.max_per_customer != b.rule.max_per_customer),
            ("maxPerWindow", a.rule.max_per_window != b.rule.max_per_window),
            ("maxPointsPerCustomer", a.rule.max_points_per_customer != b.rule.max_points_per_customer),
            ("maxPointsPerWindow", a.rule.max_points_per_window != b.rule.max_points_per_window),
            ("lateness", a.rule.lateness != b.rule.lateness),
            ("holdFor", a.rule.hold_for != b.rule.hold_for),
            ("expiresAfter", a.rule.expires_after != b.rule.expires_after),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
    }
}

impl CampaignUpdate {
    /// Applies the edit to an input. Fails if it removes the value of a required field.
    pub(super) fn apply(self, mut input: CampaignInput, path: &[String]) -> Result<CampaignInput, Error> {
        fn required<T>(check: &mut Check, field: &str, target: &mut T, patch: Option<Option<T>>) {
            match patch {
                Some(Some(value)) => *target = value,
                Some(None) => check.fail(&[field], UserErrorCode::Required, "must not be null: omit the field instead"),
                None => {}
            }
        }
        fn optional<T>(target: &mut Option<T>, patch: Option<Option<T>>) {
            if let Some(value) = patch {
                *target = value;
            }
        }
        let mut check = Check::at(path);
        required(&mut check, "name", &mut input.name, self.name);
        optional(&mut input.description, self.description);
        required(&mut check, "startsAt", &mut input.starts_at, self.starts_at);
        optional(&mut input.ends_at, self.ends_at);
        required(&mut check, "timeZone", &mut input.time_zone, self.time_zone);
        required(&mut check, "currency", &mut input.currency, self.currency);
        optional(&mut input.filter, self.filter);
        required(&mut check, "window", &mut input.window, self.window);
        required(&mut check, "goal", &mut input.goal, self.goal);
        required(&mut check, "award", &mut input.award, self.award);
        optional(&mut input.max_per_customer, self.max_per_customer);
        optional(&mut input.max_per_window, self.max_per_window);
        optional(&mut input.max_points_per_customer, self.max_points_per_customer);
        optional(&mut input.max_points_per_window, self.max_points_per_window);
        optional(&mut input.budget, self.budget);
        required(&mut check, "lateness", &mut input.lateness, self.lateness);
        optional(&mut input.hold_for, self.hold_for);
        optional(&mut input.expires_after, self.expires_after);
        check.finish(Some(input))
    }
}

impl Check {
    fn instant(&mut self, path: &[&str], text: &str) -> Option<Instant> {
        self.parsed(path, parse_instant(text), |_| UserErrorCode::Invalid)
    }

    fn span(&mut self, path: &[&str], text: &str) -> Option<IsoDuration> {
        self.parsed(path, IsoDuration::parse(text), |_| UserErrorCode::Invalid)
    }

    fn rate(&mut self, path: &[&str], text: &str) -> Option<Rate> {
        let rate = self.parsed(path, scaled(text, RATE_DECIMALS), |error| match error {
            MoneyError::TooManyDecimals(_) => UserErrorCode::TooManyDecimals,
            MoneyError::OutOfRange => UserErrorCode::OutOfRange,
            MoneyError::Malformed | MoneyError::UnknownCurrency => UserErrorCode::Invalid,
        });
        rate.map(Rate)
    }

    fn local_time(&mut self, path: &[&str], text: &str) -> Option<LocalTime> {
        self.parsed(path, LocalTime::parse(text), |_| UserErrorCode::Invalid)
    }
}

fn check_filter(check: &mut Check, filter: FilterInput, currency: Option<Currency>) -> Filter {
    let lists = [
        ("channels", &filter.channels),
        ("categories", &filter.categories),
        ("skus", &filter.skus),
        ("excludedCategories", &filter.excluded_categories),
        ("excludedSkus", &filter.excluded_skus),
    ];
    for (name, list) in lists {
        let list = list.as_deref().unwrap_or_default();
        if list.len() > MAX_FILTER_ENTRIES {
            let message = format!("must have at most {MAX_FILTER_ENTRIES} entries");
            check.fail(&["filter", name], UserErrorCode::OutOfRange, message);
        }
        for (index, text) in list.iter().take(MAX_FILTER_ENTRIES).enumerate() {
            check.text(&["filter", name, &index.to_string()], text);
        }
    }
    let min_amount = filter.min_amount.zip(currency);
    Filter {
        min_amount: min_amount.and_then(|(text, currency)| check.amount(&["filter", "minAmount"], currency, &text)),
        channels: filter.channels,
        categories: filter.categories,
        skus: filter.skus,
        excluded_categories: filter.excluded_categories,
        excluded_skus: filter.excluded_skus,
    }
}

fn check_window(check: &mut Check, window: WindowInput) -> Option<WindowRule> {
    Some(match window {
        WindowInput::Campaign(WholeCampaign::Whole) => WindowRule::Campaign,
        WindowInput::Calendar { unit, every, week_starts_on, day_starts_at } => {
            let day_starts_at = check.local_time(&["window", "calendar", "dayStartsAt"], &day_starts_at)?;
            WindowRule::Calendar(Calendar { unit, every, week_starts_on, day_starts_at })
        }
        WindowInput::Recurring { weekdays, from, to } => {
            let from = check.local_time(&["window", "recurring", "from"], &from);
            let to = check.local_time(&["window", "recurring", "to"], &to);
            WindowRule::Recurring(Recurring { weekdays, from: from?, to: to? })
        }
        WindowInput::Session { gap } => WindowRule::Session { gap: check.span(&["window", "session", "gap"], &gap)? },
        WindowInput::Timer { duration, reopens } => {
            let duration = check.span(&["window", "timer", "duration"], &duration)?;
            WindowRule::Timer { duration, reopens }
        }
        WindowInput::Rolling { duration } => {
            WindowRule::Rolling { duration: check.span(&["window", "rolling", "duration"], &duration)? }
        }
    })
}

fn check_goal(check: &mut Check, goal: GoalInput, currency: Option<Currency>) -> Option<Goal> {
    Some(match goal {
        GoalInput::EveryPurchase(EveryPurchase::Each) => Goal::EveryPurchase,
        GoalInput::Purchases { at_least, repeat } => Goal::Purchases { at_least, repeat },
        GoalInput::Spend { amount, repeat } => {
            let at_least = check.amount(&["goal", "spend", "amount"], currency?, &amount)?;
            Goal::Spend { at_least, repeat }
        }
        GoalInput::Units { at_least, repeat } => Goal::Units { at_least, repeat },
        GoalInput::Distinct { of, at_least } => Goal::Distinct { of, at_least },
        GoalInput::Streak { length, purchases_per_window, repeat } => {
            Goal::Streak { length, purchases_per_window, repeat }
        }
    })
}

fn check_award(check: &mut Check, award: AwardInput) -> Option<AwardRule> {
    match award {
        AwardInput::Points(points) => Some(AwardRule::Points(points)),
        AwardInput::PointsPerUnit(rate) => check.rate(&["award", "pointsPerUnit"], &rate).map(AwardRule::PointsPerUnit),
        AwardInput::PointsByCategory(CategoryRatesInput { rate, rates }) => {
            let rate = check.rate(&["award", "pointsByCategory", "rate"], &rate);
            // One entry more than the limit is enough for the fault.
            let rates = rates.into_iter().take(MAX_RATES + 1).enumerate();
            let rates: Vec<_> = rates.map(|(index, one)| check_category_rate(check, index, one)).collect();
            let rates = rates.into_iter().collect::<Option<_>>()?;
            Some(AwardRule::PointsByCategory(CategoryRates { rate: rate?, rates }))
        }
    }
}

fn check_category_rate(check: &mut Check, index: usize, input: CategoryRateInput) -> Option<CategoryRate> {
    let CategoryRateInput { categories, rate } = input;
    let index = index.to_string();
    let path = ["award", "pointsByCategory", "rates", index.as_str()];
    if categories.len() > MAX_FILTER_ENTRIES {
        let message = format!("must have at most {MAX_FILTER_ENTRIES} entries");
        check.fail(&[&path[..], &["categories"]].concat(), UserErrorCode::OutOfRange, message);
    }
    for (at, category) in categories.iter().take(MAX_FILTER_ENTRIES).enumerate() {
        check.text(&[&path[..], &["categories", at.to_string().as_str()]].concat(), category);
    }
    let rate = check.rate(&[&path[..], &["rate"]].concat(), &rate)?;
    Some(CategoryRate { categories, rate })
}

fn window_input(window: &WindowRule) -> WindowInput {
    let text = |span: &IsoDuration| span.as_str().to_owned();
    match window {
        WindowRule::Campaign => WindowInput::Campaign(WholeCampaign::Whole),
        WindowRule::Calendar(Calendar { unit, every, week_starts_on, day_starts_at }) => WindowInput::Calendar {
            unit: *unit,
            every: *every,
            week_starts_on: *week_starts_on,
            day_starts_at: day_starts_at.to_string(),
        },
        WindowRule::Recurring(Recurring { weekdays, from, to }) => {
            WindowInput::Recurring { weekdays: weekdays.clone(), from: from.to_string(), to: to.to_string() }
        }
        WindowRule::Session { gap } => WindowInput::Session { gap: text(gap) },
        WindowRule::Timer { duration, reopens } => WindowInput::Timer { duration: text(duration), reopens: *reopens },
        WindowRule::Rolling { duration } => WindowInput::Rolling { duration: text(duration) },
    }
}

fn goal_input(goal: &Goal, currency: Currency) -> GoalInput {
    match goal {
        Goal::EveryPurchase => GoalInput::EveryPurchase(EveryPurchase::Each),
        Goal::Purchases { at_least, repeat } => GoalInput::Purchases { at_least: *at_least, repeat: *repeat },
        Goal::Spend { at_least, repeat } => {
            GoalInput::Spend { amount: currency.format(i128::from(*at_least)), repeat: *repeat }
        }
        Goal::Units { at_least, repeat } => GoalInput::Units { at_least: *at_least, repeat: *repeat },
        Goal::Distinct { of, at_least } => GoalInput::Distinct { of: *of, at_least: *at_least },
        Goal::Streak { length, purchases_per_window, repeat } => {
            GoalInput::Streak { length: *length, purchases_per_window: *purchases_per_window, repeat: *repeat }
        }
    }
}
