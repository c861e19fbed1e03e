//! Contexts with a fact in them, made from a text by a seed.

use super::Job;
use crate::error::Error;
use raglan_models::Tokenizer;

/// Numbers to choose from; their first digits differ.
pub const CANDIDATES: usize = 8;

/// Tokens kept free for what the model writes beyond a number.
const ANSWER: usize = 4;

const PLACES: [&str; 12] = [
    "lighthouse",
    "harbour",
    "windmill",
    "library",
    "bakery",
    "observatory",
    "orchard",
    "museum",
    "bridge",
    "theatre",
    "railway station",
    "monastery",
];

/// One fact in one context.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trial {
    /// Tokens of the context, the answer among them.
    pub(super) length: usize,
    /// How far into the text the fact is, in percent.
    pub(super) depth: usize,
    /// The context up to where the number is wanted.
    pub(super) prompt: Vec<u32>,
    /// How many of its tokens come before the fact.
    pub(super) common: usize,
    /// What may follow; the right one is the first.
    pub(super) candidates: Vec<Vec<u32>>,
    /// The right one as text.
    pub(super) number: String,
}

/// What contexts are made from.
pub(super) struct Hay<'a> {
    job: &'a Job<'a>,
    /// What a context of this model begins with.
    begin: Vec<u32>,
}

/// SplitMix64. Source: Steele et al. 2014, OOPSLA, figure 17.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

impl Hay<'_> {
    /// # Errors
    /// If the text is too short for the longest context.
    pub(super) fn new<'a>(job: &'a Job<'a>) -> Result<Hay<'a>, Error> {
        let begin = job.tokenizer.encode("", true)?;
        let longest = job.lengths.iter().max().copied().unwrap_or(0);
        if job.filler.len() < longest {
            let message =
                format!("a context of {longest} tokens needs as many of text; there are {}", job.filler.len());
            return Err(Error::Request { message });
        }
        Ok(Hay { job, begin })
    }

    /// # Errors
    /// If `length` has no room for the question, or the tokenizer fails.
    pub(super) fn trial(&self, length: usize, depth: usize, sample: usize) -> Result<Trial, Error> {
        // All depths of a length and sample lie in one text, so that they begin alike.
        let mut of_text = Random(self.job.seed ^ ((sample as u64 + 1) << 32));
        let mut of_fact = Random(of_text.next() ^ ((length as u64) << 8) ^ depth as u64);
        let place = PLACES[of_fact.below(PLACES.len())];
        let numbers = numbers(&mut of_fact);
        let sentence = format!("The secret number of the {place} is");
        let fact = self.job.tokenizer.encode(&format!("\n{sentence} {}.\n", numbers[0]), false)?;
        let question = format!("\n\nQuestion: What is the secret number of the {place}?\nAnswer: {sentence}");
        let (question, candidates) = continued(self.job.tokenizer, &question, &numbers)?;

        let answer = candidates.iter().map(Vec::len).max().unwrap_or(0) + ANSWER;
        let around = self.begin.len() + fact.len() + question.len() + answer;
        let Some(text) = length.checked_sub(around).filter(|&text| text > 0) else {
            let message =
                format!("a context of {length} tokens has no room for a fact and its question: {around} tokens");
            return Err(Error::Request { message });
        };
        let start = of_text.below(self.job.filler.len() - length + 1);
        let (before, after) = self.job.filler[start..start + text].split_at(text * depth / 100);
        let prompt = [&self.begin[..], before, &fact, after, &question].concat();
        let common = self.begin.len() + before.len();
        Ok(Trial { length, depth, prompt, common, candidates, number: numbers[0].clone() })
    }
}

/// Numbers of five digits; no two begin with the same.
fn numbers(random: &mut Random) -> Vec<String> {
    let mut first: Vec<usize> = (1..=9).collect();
    let mut number = || {
        let first = first.swap_remove(random.below(first.len()));
        (10_000 * first + random.below(10_000)).to_string()
    };
    (0..CANDIDATES).map(|_| number()).collect()
}

/// The tokens of a question, and those of each number after it: split where they all still agree, since a tokenizer may
/// join a question's end with what follows.
fn continued(tokenizer: &Tokenizer, question: &str, numbers: &[String]) -> Result<(Vec<u32>, Vec<Vec<u32>>), Error> {
    let alone = tokenizer.encode(question, false)?;
    let all = numbers.iter().map(|number| tokenizer.encode(&format!("{question} {number}"), false));
    let all: Vec<Vec<u32>> = all.collect::<Result<_, _>>()?;
    let common = |other: &Vec<u32>| alone.iter().zip(other).take_while(|(a, b)| a == b).count();
    let split = all.iter().map(common).min().unwrap_or(0);
    Ok((alone[..split].to_vec(), all.into_iter().map(|tokens| tokens[split..].to_vec()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_five_digits_that_begin_unlike_and_a_seed_gives_them_again() {
        for seed in 0..100 {
            let met = numbers(&mut Random(seed));
            let mut first: Vec<char> = met.iter().map(|number| number.chars().next().unwrap()).collect();
            first.sort_unstable();
            first.dedup();
            assert_eq!((met.len(), first.len()), (CANDIDATES, CANDIDATES), "{met:?}");
            assert!(met.iter().all(|number| number.len() == 5));
            assert_eq!(met, numbers(&mut Random(seed)));
        }
        assert_ne!(numbers(&mut Random(1)), numbers(&mut Random(2)));
    }
}
