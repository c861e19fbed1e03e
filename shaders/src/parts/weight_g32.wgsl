// A group of integers is 32 values.

const WEIGHT_BLOCK_VALUES: u32 = 32u;
