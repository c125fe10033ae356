# Filled by the install rules: find_package(cohort COMPONENTS comm runtime ...).
