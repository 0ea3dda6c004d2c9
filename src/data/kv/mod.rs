//! KV blocks by the name of what they hold, kept in tiers below the engines' own memory.
