"""The contract: types, registry, chains, validation. Knows no artifact."""
