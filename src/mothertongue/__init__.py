"""From conversations to a measured, quantised chat model in your language."""
