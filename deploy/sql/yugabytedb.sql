-- Once, before the first 'evergrant db upgrade', in the database that evergrant gets.
-- Tables and indexes are then kept in the order of their keys, as PostgreSQL's are, and cut into ranges where they grow.
-- Without it, all rows of a project are placed by the hash of its id, together: one large project is on one tablet.
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET yb_use_hash_splitting_by_default = off', current_database());
END $$;
