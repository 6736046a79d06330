import io.trino.plugin.iceberg.IcebergPlugin;
import io.trino.server.testing.TestingTrinoServer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;

/** Trino in one process with one catalog, `iceberg`: MiniTrino PORT PROPERTIES_FILE. */
public class MiniTrino {
    public static void main(String[] arguments) throws Exception {
        var file = new Properties();
        try (var in = Files.newInputStream(Path.of(arguments[1]))) {
            file.load(in);
        }
        Map<String, String> properties = new HashMap<>();
        file.forEach((name, value) -> properties.put((String) name, (String) value));
        var server = TestingTrinoServer.builder()
            .setProperties(Map.of(
                "http-server.http.port", arguments[0],
                "query.max-memory-per-node", "400MB",
                "memory.heap-headroom-per-node", "200MB"))
            .build();
        server.installPlugin(new IcebergPlugin());
        server.createCatalog("iceberg", "iceberg", properties);
        System.out.println("trino is ready");
        Thread.currentThread().join();
    }
}
