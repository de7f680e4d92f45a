import java.lang.reflect.Constructor;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;

/**
 * Reads messages that the test `wire_oracle` has written with Kafka's own classes, writes them again
 * with these, and expects the same bytes. Kafka's defaults are compared in the same way.
 *
 * Usage: java -cp JARS WireVectors.java FILE
 *
 * JARS: kafka-clients, kafka-group-coordinator, kafka-transaction-coordinator,
 * kafka-share-coordinator, kafka-raft. FILE: `target/tmp/wire_vectors.txt`, with lines
 * `value|default NAME VERSION HEX`. Exits with 1 if any message differs.
 */
public class WireVectors {
    private static final String[] PACKAGES = {
        "org.apache.kafka.common.message.",
        "org.apache.kafka.coordinator.group.generated.",
        "org.apache.kafka.coordinator.transaction.generated.",
        "org.apache.kafka.coordinator.share.generated.",
        "org.apache.kafka.raft.generated.",
    };

    public static void main(String[] arguments) throws Exception {
        Map<String, Constructor<?>> constructors = new TreeMap<>();
        Map<String, String> failures = new TreeMap<>();
        int lines = 0;
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] parts = line.split(" ", -1);
            short version = Short.parseShort(parts[2]);
            byte[] bytes = HexFormat.of().parseHex(parts[3]);
            lines++;
            String failure;
            try {
                Constructor<?> constructor = constructors.get(parts[1]);
                if (constructor == null) {
                    constructor = find(parts[1]).getConstructor();
                    constructors.put(parts[1], constructor);
                }
                Message message = (Message) constructor.newInstance();
                failure = check(message, version, bytes, parts[0].equals("value"));
            } catch (Exception error) {
                failure = error.toString();
            }
            if (failure != null) {
                failures.putIfAbsent(parts[0] + " " + parts[1] + " " + version, failure);
            }
        }
        failures.forEach((what, failure) -> System.out.println(what + ": " + failure));
        System.out.printf("%d messages, %d lines: %d differences%n",
            constructors.size(), lines, failures.size());
        System.exit(failures.isEmpty() ? 0 : 1);
    }

    private static Class<?> find(String name) throws ClassNotFoundException {
        for (String prefix : PACKAGES) {
            for (String suffix : new String[] {"Data", ""}) {
                try {
                    return Class.forName(prefix + name + suffix);
                } catch (ClassNotFoundException error) {
                    // The next one may have it.
                }
            }
        }
        throw new ClassNotFoundException(name);
    }

    private static String check(Message message, short version, byte[] bytes, boolean read) {
        if (read) {
            ByteBuffer input = ByteBuffer.wrap(bytes);
            message.read(new ByteBufferAccessor(input), version);
            if (input.hasRemaining()) {
                return input.remaining() + " bytes are left";
            }
        }
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer output = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(output), cache, version);
        String expected = HexFormat.of().formatHex(bytes);
        String actual = HexFormat.of().formatHex(output.array());
        return actual.equals(expected) ? null : expected + " here, " + actual + " there: " + message;
    }
}
