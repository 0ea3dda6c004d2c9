//! Azure's LLM inference traces: arrivals and lengths, without content.

use super::TraceError;
use crate::rng::Rng;
use crate::sim::Workload;
use crate::sim::generate::{Conversations, MOST_TOKENS, PrefixModel};

const FORMAT: &str = "Azure (TIMESTAMP,ContextTokens,GeneratedTokens)";
const NANOS_PER_S: i64 = 1_000_000_000;

/// `TIMESTAMP,ContextTokens,GeneratedTokens` a line, with or without that header: an open loop.
///
/// The traces say nothing of what prompts have in common: the prefixes are made up by `prefixes`,
/// with blocks of `block_size`, and are the same for the same `seed`. They are a model, not a
/// measurement.
///
/// # Errors
/// [`TraceError`] names the line, or the setting of `prefixes` that cannot be.
///
/// ```
/// use llmd_brain::sim::{PrefixModel, azure};
///
/// let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
///             2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n";
/// let workload = azure(text, &PrefixModel::default(), 16, 1)?;
/// assert_eq!(workload.prompts()[1].prompt_tokens, 3_180);
/// assert!((workload.prompts()[1].at_ms - 52.0).abs() < 1e-6);
/// # Ok::<(), llmd_brain::sim::TraceError>(())
/// ```
pub fn azure(
    text: &str,
    prefixes: &PrefixModel,
    block_size: u32,
    seed: u64,
) -> Result<Workload, TraceError> {
    let mut rng = Rng::new(seed);
    let mut conversations = Conversations::new(*prefixes, block_size, &mut rng)?;
    let mut workload = Workload::new(block_size);
    let mut began = None;
    for (number, line) in (1..).zip(text.lines()) {
        let is_header = number == 1 && line.trim_start_matches('\u{feff}').starts_with("TIMESTAMP");
        if is_header || line.trim().is_empty() {
            continue;
        }
        let row =
            parse(line).map_err(|why| TraceError::Line { line: number, why, format: FORMAT })?;
        let began = *began.get_or_insert(row.at_nanos);
        // A conversation is continued by a prompt that is at least a token longer.
        let continued = conversations.continued(&mut rng, row.prompt_tokens.saturating_sub(1));
        let conversation =
            continued.unwrap_or_else(|| conversations.begin(&mut rng, row.prompt_tokens / 2));
        workload.begin_session();
        workload.push(
            (row.at_nanos - began) as f64 / 1e6,
            row.prompt_tokens,
            row.output_tokens,
            conversation.keys(row.prompt_tokens / block_size),
        );
        conversations.keep(conversation, row.prompt_tokens + row.output_tokens);
    }
    if workload.prompts().is_empty() { Err(TraceError::Empty(FORMAT)) } else { Ok(workload) }
}

struct Row {
    at_nanos: i64,
    prompt_tokens: u32,
    output_tokens: u32,
}

fn parse(line: &str) -> Result<Row, String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [at, prompt, output] = fields[..] else {
        return Err(format!("it has {} fields, not 3", fields.len()));
    };
    let tokens = |name: &str, text: &str| match text.parse::<u32>() {
        Ok(tokens) if tokens <= MOST_TOKENS => Ok(tokens),
        _ => Err(format!("{name} is {text:?}, not a number from 0 to {MOST_TOKENS}")),
    };
    Ok(Row {
        at_nanos: nanos(at)
            .ok_or_else(|| format!("TIMESTAMP is {at:?}, not like 2023-11-16 18:17:03.9799600"))?,
        prompt_tokens: tokens("ContextTokens", prompt)?,
        output_tokens: tokens("GeneratedTokens", output)?,
    })
}

/// `YYYY-MM-DD hh:mm:ss[.fraction][+00:00]`, also with a `T`, as nanoseconds since 1970.
fn nanos(text: &str) -> Option<i64> {
    let text = text.trim_end_matches('Z');
    let text = text.strip_suffix("+00:00").unwrap_or(text);
    let (date, time) = text.split_once([' ', 'T'])?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(time, ':')?;
    let valid = (1_970..2_200).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    let is_fraction = fraction.len() <= 9 && fraction.bytes().all(|it| it.is_ascii_digit());
    if !valid || !is_fraction {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * NANOS_PER_S + fraction)
}

fn numbers(text: &str, between: char) -> Option<[i64; 3]> {
    let mut parts = text.split(between).map(|part| part.parse::<i64>().ok());
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// Days since 1970 in the Gregorian calendar, whose years begin in March here, so that a leap day is
/// a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469
}

#[cfg(test)]
mod tests {
    use super::nanos;

    #[test]
    fn timestamps_are_what_a_calendar_says() {
        assert_eq!(nanos("1970-01-01 00:00:00"), Some(0));
        assert_eq!(nanos("2024-02-29T12:00:00.5Z"), Some(1_709_208_000_500_000_000));
        assert_eq!(nanos("2023-11-16 18:17:03.9799600"), Some(1_700_158_623_979_960_000));
        for bad in ["", "2023", "2023-11-16", "2023-13-01 00:00:00", "2023-1-1 1:1:1.-5"] {
            assert_eq!(nanos(bad), None, "{bad}");
        }
    }
}
