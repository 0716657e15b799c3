//! The log on its own: what is written comes back, whatever the end looks like.
