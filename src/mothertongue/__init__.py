"""From conversations to a measured, quantised chat model that speaks your language."""
