import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;

/** What a service made of events, so that each counts once and in the order in which it happened. */
class Books implements AutoCloseable {
  private static final String UPSERT = """
      INSERT INTO latest VALUES (?, ?, ?) ON CONFLICT (entity) DO UPDATE
      SET sequence = excluded.sequence, event = excluded.event WHERE excluded.sequence >= latest.sequence""";

  private final Connection db;

  Books(String file) throws SQLException {
    db = DriverManager.getConnection("jdbc:sqlite:" + file);
    change("CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY)");
    change("CREATE TABLE IF NOT EXISTS latest (entity TEXT PRIMARY KEY, sequence INTEGER, event TEXT)");
    db.setAutoCommit(false);
  }

  /** Does what an event asks for, unless it was done. The key is never there without it, nor the other way round. */
  void once(String key, String entity, long sequence, String event) throws SQLException {
    try {
      if (change("INSERT INTO done VALUES (?) ON CONFLICT DO NOTHING", key) == 0) return;
      boolean newer = change(UPSERT, entity, sequence, event) > 0;
      db.commit();
      System.out.println("done " + key + " " + entity + " " + sequence + " " + event + (newer ? "" : " late"));
    } finally {
      db.rollback(); // does nothing after commit
    }
  }

  private int change(String sql, Object... values) throws SQLException {
    try (var statement = db.prepareStatement(sql)) {
      for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
      return statement.executeUpdate();
    }
  }

  @Override
  public void close() throws SQLException {
    db.close();
  }
}
